"""Adapters of low rank in the states of segments: of phones that have smaller ones than others, and their average.

A state has them at the largest rank r: A (r, ...) is what enters an adapter, B (..., r) what leaves it. What a phone of
rank k has is the first k of r; the rest is zero in both, adds nothing, and has gradients of zero. So it stays zero in
every step of an element-wise optimizer, and training is that of adapters of rank k. numpy alone.
"""
