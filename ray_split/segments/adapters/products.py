"""The average of adapters: of their products, which is what they add to a layer, and of no factor alone.

Shapes: P phones; r the largest rank; A (r, n), B (m, r).
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from ray_split.arrays import Array


def averaged_factors(a: Array, b: Array, shares: Array) -> tuple[Array, Array]:
    """Factors of the best approximation of rank r to the average product of A (P, r, ...) and B (P, m, r, ...).

    By singular values, the largest first: their first k are the best approximation of rank k (Eckart and Young 1936).
    A's rows are the singular vectors, of length one, and B has the singular values: where the product needs fewer than
    r, B is zero and A isn't, so that they can still be trained. In double precision, and on one thread: to the same
    bits wherever it is done.
    """
    rank = a.shape[1]
    counting = np.flatnonzero(shares)
    left = [shares[i] * b[i].reshape(-1, rank).astype(np.float64) for i in counting]
    right = [a[i].reshape(rank, -1).astype(np.float64) for i in counting]
    with threadpool_limits(1, "blas"):
        u, values, v = _decomposed(np.concatenate(left, axis=1), np.concatenate(right))
    kept = min(rank, len(values))
    signs = np.sign(v[np.arange(kept), np.abs(v[:kept]).argmax(axis=1)])  # which are arbitrary in what was decomposed
    factors = np.zeros((rank, v.shape[1])), np.zeros((u.shape[0], rank))
    factors[0][:kept] = signs[:, None] * v[:kept]
    factors[1][:, :kept] = signs * u[:, :kept] * values[:kept]
    return factors[0].reshape(a.shape[1:]), factors[1].reshape(b.shape[1:])


def _decomposed(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """The singular value decomposition u, values, v of left (m, R) @ right (R, n): through R where that is small."""
    if left.shape[1] >= min(left.shape[0], right.shape[1]):
        u, values, v = np.linalg.svd(left @ right, full_matrices=False)
        return u, values, v
    (q, upper), (p, lower) = np.linalg.qr(left), np.linalg.qr(right.T)
    u, values, v = np.linalg.svd(upper @ lower.T)
    return q @ u, values, v @ p.T
