"""Phones outside the cluster: toward the schedule one more client, toward devices a server."""
