"""What a split costs on real phones: where to cut, and virtual time."""
