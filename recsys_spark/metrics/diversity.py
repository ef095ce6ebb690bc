"""How unlike each other the items of a list are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def intra_list_diversity(
    recommended: NDArray[Any], vectors: NDArray[np.float32], ks: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Compute the mean of 1 - cosine over the pairs of the first k items at each k, as "intra_list_diversity@10".

    Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005, measure the sum of the
    similarities. `recommended` (q, width) are item positions, best first, padded with -1; `vectors` (items, d) have
    length 1, or 0 where there is none, and such items are in no pair. Every metric is float64 (q,), nan without a pair.
    Raises ValueError for a k outside 1 to the width. Memory: 24 bytes x q x d.
    """
    if not 1 <= min(ks) <= max(ks) <= recommended.shape[1]:
        raise ValueError(f"ks must be within 1 to {recommended.shape[1]}, the width of the lists, got {list(ks)}")
    n_queries = recommended.shape[0]
    total, similarity = np.zeros((n_queries, vectors.shape[1])), np.zeros(n_queries)
    n_items, n_pairs = np.zeros(n_queries), np.zeros(n_queries)
    metrics = {}
    for place in range(max(ks)):
        found = _vectors_at(recommended[:, place], vectors)
        is_known = found.any(axis=1)
        # The sum of the vectors above has as its product the sum of the cosines with them.
        similarity += np.einsum("qd,qd->q", total, found)
        n_pairs += n_items * is_known
        n_items += is_known
        total += found
        if place + 1 in ks:
            mean = np.divide(similarity, n_pairs, out=np.full(n_queries, np.nan), where=n_pairs > 0)
            metrics[f"intra_list_diversity@{place + 1}"] = 1.0 - mean
    return metrics


def _vectors_at(items: NDArray[Any], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    found = np.zeros((len(items), vectors.shape[1]))
    found[items >= 0] = vectors[items[items >= 0]]
    return found
