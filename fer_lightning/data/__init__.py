"""Faces, from any published form to batches on the device."""
