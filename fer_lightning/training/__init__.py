"""The LightningModule, its callbacks, loggers and checkpoints."""
