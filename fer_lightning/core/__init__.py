"""The base of all other subpackages: errors, files, signals, processes, hardware."""
