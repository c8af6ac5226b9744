"""What people submit: python -m jobs.train, and the like."""
