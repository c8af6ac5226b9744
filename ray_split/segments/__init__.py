"""A segment's copies, looped or stacked: forward, backward, step, averages."""
