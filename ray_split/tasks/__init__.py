"""What is learned: losses, metrics."""
