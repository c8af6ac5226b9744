"""What jobs/bench.py measures: a function for each row of bench.json."""
