"""The data audit: duplicates, leaks, conflicting labels, altered images."""
