"""What is wrong with a data set: duplicates, leaks, conflicting labels, altered images."""
