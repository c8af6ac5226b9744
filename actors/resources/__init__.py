"""What actors take of nodes: CPUs, threads and GPUs, and where they are placed."""
