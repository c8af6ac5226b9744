"""Phones outside the cluster: be one of them, and invite others."""
