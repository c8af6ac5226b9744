"""A segment's step: optimizers, learning rates, what gradients go through before it, averages of weights after it."""
