"""``python -m fer_lightning.export``."""

from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take seconds

# isort: split
import sys

from fer_lightning.cli.export import main
from fer_lightning.core.stdio import make_stdio_robust

if __name__ == "__main__":
    make_stdio_robust()
    sys.exit(main())
