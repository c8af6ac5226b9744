"""Rows of nodes, jobs, and actors that die."""
