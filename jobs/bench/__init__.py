"""Speed, measured: a function for each row of bench.json."""
