"""The k best of many: their type, their exact merge, and the bounded heap the kernels keep them in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.jit import Real, Whole, compiled
from recsys_spark.kernels.simd import MASK_BITS, above, bit_count, float_of

POSITIVE_INFINITY = int(np.float32(np.inf).view(np.int32))  # their bits
NEGATIVE_INFINITY = int(np.float32(-np.inf).view(np.int32))


@dataclass(frozen=True)
class TopK:
    """The k best candidates of each query, best first, ties by the smaller index.

    `indices` int64 (q, k), padded with -1; `scores` (q, k): float32 scores padded with -inf, or float64
    distances padded with inf.
    """

    indices: NDArray[np.int64]
    scores: NDArray[Any]

    def __post_init__(self) -> None:
        if self.indices.ndim != 2 or self.indices.shape != self.scores.shape:
            raise ValueError(f"indices {self.indices.shape} and scores {self.scores.shape} must both be (q, k)")


def merge_top_k(left: TopK, right: TopK, k: int, largest: bool) -> TopK:
    """Take the k best of two lists of the same queries over different candidates; padding is ignored.

    `largest`: whether larger scores are better (scores) or smaller ones (distances). The k best of two
    lists of k best are the k best of all, so shards can be merged in any order.
    """
    require_k(k)
    if left.indices.shape[0] != right.indices.shape[0]:
        raise ValueError(f"cannot merge {left.indices.shape[0]} with {right.indices.shape[0]} queries")
    indices = np.hstack([left.indices, right.indices]).astype(np.int64)
    scores = np.hstack([left.scores, right.scores])
    is_padding = indices < 0
    badness = np.where(is_padding, np.inf, -scores if largest else scores)
    order = np.lexsort((indices, badness, is_padding), axis=-1)[:, :k]
    merged = empty_top_k(indices.shape[0], k, -np.inf if largest else np.inf, scores.dtype)
    merged.indices[:, : order.shape[1]] = np.take_along_axis(indices, order, axis=1)
    merged.scores[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    merged.scores[merged.indices < 0] = -np.inf if largest else np.inf
    return merged


def require_k(k: int) -> None:
    """Raise ValueError unless k >= 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def empty_top_k(n_queries: int, k: int, padding: float, dtype: Any) -> TopK:
    """Give lists of padding only, for kernels to fill."""
    return TopK(np.full((n_queries, k), -1, np.int64), np.full((n_queries, k), padding, dtype))


# A heap is a pair of arrays (scores, indices) and a size. Larger scores are better, among equal ones the
# smaller index; the root, slot 0, is the worst one kept. Comparing (score, -index) and not the score alone
# is what makes the outcome independent of the order in which candidates come.


@compiled
def is_worse(score: Real, index: Whole, other_score: Real, other_index: Whole) -> bool:
    """Whether the first candidate ranks below the other."""
    return bool(score < other_score or (score == other_score and index > other_index))


@compiled
def _sift_down(scores: NDArray[Any], indices: NDArray[Any], size: int, score: Real, index: Whole) -> None:
    slot = 0
    while True:
        child = 2 * slot + 1
        if child >= size:
            break
        right = child + 1
        if right < size and is_worse(scores[right], indices[right], scores[child], indices[child]):
            child = right
        if not is_worse(scores[child], indices[child], score, index):
            break
        scores[slot], indices[slot] = scores[child], indices[child]
        slot = child
    scores[slot], indices[slot] = score, index


@compiled
def _sift_up(scores: NDArray[Any], indices: NDArray[Any], slot: int, score: Real, index: Whole) -> None:
    while slot > 0:
        parent = (slot - 1) // 2
        if not is_worse(score, index, scores[parent], indices[parent]):
            break
        scores[slot], indices[slot] = scores[parent], indices[parent]
        slot = parent
    scores[slot], indices[slot] = score, index


@compiled
def offer(scores: NDArray[Any], indices: NDArray[Any], size: int, score: Real, index: Whole) -> int:
    """Put a candidate into the heap if it is among the best `scores.size`; give the new size."""
    if size < scores.size:
        _sift_up(scores, indices, size, score, index)
        return size + 1
    if is_worse(scores[0], indices[0], score, index):
        _sift_down(scores, indices, size, score, index)
    return size


@compiled
def sort_heap(scores: NDArray[Any], indices: NDArray[Any], size: int) -> None:
    """Order the first `size` slots of a heap best first, in place."""
    for last in range(size - 1, 0, -1):
        score, index = scores[last], indices[last]
        scores[last], indices[last] = scores[0], indices[0]
        _sift_down(scores, indices, last, score, index)


@compiled
def kth_smallest(values: NDArray[Any], k: int) -> float:
    """Give the k-th smallest value, counted from 1, and reorder `values` (Hoare's FIND, CACM 1961).

    NumPy's `partition` does the same in Numba, but takes five seconds to compile.
    """
    low, high = 0, values.size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while pivot < values[right]:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if k - 1 <= right:
            high = right
        elif k - 1 >= left:
            low = left
        else:
            break
    kth: float = values[k - 1]
    return kth


@compiled
def ordered_bits(bits: Whole) -> np.int32:
    """Turn the bits of a float32 into a whole number in the order of the values, -0 before 0, or back."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@compiled
def kth_largest(values: NDArray[np.float32], k: int, tolerance: int = 0) -> np.float32:
    """Give the k-th largest value, counted from 1, or less by no more than `tolerance` units of the last bit.

    `values` are padded with -inf to whole 64s. The range of the bits is halved until it is small enough: each step
    counts all values, in vector instructions and without a branch that depends on them.
    """
    low, high = np.int64(ordered_bits(NEGATIVE_INFINITY)), np.int64(POSITIVE_INFINITY)
    while high - low > tolerance:
        middle = (low + high + 1) >> 1
        below, count = float_of(ordered_bits(np.int32(middle - 1))), 0
        for start in range(0, values.size, MASK_BITS):
            count += bit_count(above(values, start, below))
        low, high = (middle, high) if count >= k else (low, middle - 1)
    return np.float32(float_of(ordered_bits(np.int32(low))))
