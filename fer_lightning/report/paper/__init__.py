"""Reproduction report: the paper's tables and figures from our runs, next to the paper's own numbers."""
