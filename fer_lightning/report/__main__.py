"""``python -m fer_lightning.report``."""

from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # before the imports below, which take a moment

# isort: split
import sys

from fer_lightning.cli.report import main
from fer_lightning.core.stdio import make_stdio_robust

if __name__ == "__main__":
    make_stdio_robust()
    sys.exit(main())
