"""A run's folder: checkpoints, records, the summary; written, and read back."""
