"""Readers of the published forms of data sets."""
