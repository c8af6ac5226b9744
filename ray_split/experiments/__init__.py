"""Many runs, or none: what the command does beside training. A folder each; `main.py` in it is the command."""
