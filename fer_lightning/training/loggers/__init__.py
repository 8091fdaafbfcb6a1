"""Loggers of the Trainer."""
