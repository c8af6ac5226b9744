"""The model, tried on a batch: what crosses, what is kept, whether stacking it computes the same."""
