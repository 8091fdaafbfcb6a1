"""``python -m fer_lightning``."""

from fer_lightning.core.signals import install_exit_handlers

if __name__ == "__main__":
    install_exit_handlers()  # from here on: imports take seconds

# isort: split
import sys

from fer_lightning.cli.main import main

if __name__ == "__main__":
    sys.exit(main("python -m fer_lightning"))
