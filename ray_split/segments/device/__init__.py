"""How a segment computes on its device: in which precision, compiled or not, and how tensors get there."""
