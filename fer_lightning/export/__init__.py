"""``python -m fer_lightning.export``; the command is in ``fer_lightning.cli.export``."""
