"""Phones outside the cluster: the protocol that they speak, and a client of it in Python."""
