"""Schedules compared: each trained with each seed, and one table and one plot of all."""
