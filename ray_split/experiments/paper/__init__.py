"""The tables of the paper behind this project, predicted."""
