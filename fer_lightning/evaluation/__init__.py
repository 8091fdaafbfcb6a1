"""Predictions, metrics and statistics of a split."""
