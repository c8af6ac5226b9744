"""Rows of whole runs: memory at the peak, and how long a start takes."""
