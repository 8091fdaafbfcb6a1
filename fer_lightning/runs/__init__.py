"""Run folders and sweep folders: locks, records, resuming."""
