"""``python -m fer_lightning.predict``."""
