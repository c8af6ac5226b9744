"""Data sets, and which phone trains on which samples, when."""
