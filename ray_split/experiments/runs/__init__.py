"""Finished and unfinished runs: found, looked at, told apart, put into a table."""
