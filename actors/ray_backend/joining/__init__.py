"""Joining a Ray or starting one: its address, its token, its end."""
