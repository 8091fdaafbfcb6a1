"""``python -m fer_lightning.data.audit``."""

from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take seconds

# isort: split
import sys

from fer_lightning.core.stdio import make_stdio_robust
from fer_lightning.data.audit.audit import main

if __name__ == "__main__":
    make_stdio_robust()
    sys.exit(main())
