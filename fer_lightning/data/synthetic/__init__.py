"""Synthetic faces: the built-in data set, drawn from facial action units."""
