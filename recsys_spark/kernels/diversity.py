"""Lists re-ranked to be more diverse: items unlike those above them, and not too many of a category."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import Whole, compiled, kernel_input
from recsys_spark.kernels.simd import dot
from recsys_spark.kernels.topk import TopK, empty_top_k, require_k

_NOTHING = IndexLists(np.zeros(1, np.int64), np.zeros(0, np.int32))


class Rules(NamedTuple):
    """How much diversity counts, item vectors (n, d), categories of each item as lists, and how often one may come."""

    weight: float
    vectors: NDArray[np.float32]
    indptr: NDArray[np.int64]
    categories: NDArray[np.int32]
    most: int


class Room(NamedTuple):
    """Of each candidate of one query, (c,), and how often each category has been picked, (categories,)."""

    relevance: NDArray[np.float64]
    similarity: NDArray[np.float64]
    is_known: NDArray[np.bool_]
    is_left: NDArray[np.bool_]
    counts: NDArray[np.int32]


def diversify(
    candidates: TopK,
    k: int,
    weight: float,
    vectors: NDArray[np.float32] | None = None,
    categories: IndexLists | None = None,
    max_per_category: int = 1,
) -> TopK:
    """Pick k of each query's candidates by maximal marginal relevance, with a cap for each category.

    The next item is the one with the largest (1 - weight) x relevance - weight x similarity (Carbonell and Goldstein,
    SIGIR 1998), among equals the one that comes first in `candidates`. Its relevance is its score, scaled so that the
    query's candidates reach from 0 to 1; 1 where all scores are equal. Its similarity is its largest cosine with an
    item picked before, 0 for the first pick. An item without a vector counts as similar as the others that are left
    on average, so that what is unknown neither rises nor falls.

    An item counts for each of its categories, and may be picked while all of them have been picked less than
    `max_per_category` times. Where no item may be, the best of those that are left is: the cap never shortens a list.

    `candidates` (q, c) are item positions, best first, padded with -1 at the end; `vectors` (items, d) float32, of
    length 1, or 0 where there is none, may be mapped; `categories` are numbers from 0 of each item. Lists (q, k) have
    the items' own scores. The first j picks are the same for each k >= j. Memory beside the lists: 4 bytes a category.
    Raises ValueError for k or a cap below 1, a weight outside 0 to 1 or without vectors, or an item beyond those that
    vectors or categories are of.
    """
    _require_possible(candidates, k, weight, vectors, categories, max_per_category)
    lists = _NOTHING if categories is None else categories
    rules = Rules(
        float(weight),
        kernel_input(np.zeros((0, 0), np.float32) if vectors is None else vectors, np.float32),
        kernel_input(lists.indptr, np.int64),
        kernel_input(lists.indices, np.int32),
        int(max_per_category),
    )
    picked = empty_top_k(len(candidates.indices), k, -np.inf, np.float32)
    indices, scores = kernel_input(candidates.indices, np.int64), kernel_input(candidates.scores, np.float32)
    _pick_all(indices, scores, rules, int(lists.indices.max(initial=-1)) + 1, picked.indices, picked.scores)
    return picked


def _require_possible(
    candidates: TopK,
    k: int,
    weight: float,
    vectors: NDArray[np.float32] | None,
    categories: IndexLists | None,
    max_per_category: int,
) -> None:
    require_k(k)
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be 0 to 1, got {weight}")
    if weight > 0 and vectors is None:
        raise ValueError(f"weight {weight} needs vectors of the items")
    if max_per_category < 1:
        raise ValueError(f"max_per_category must be at least 1, got {max_per_category}")
    last = int(candidates.indices.max(initial=-1))
    if vectors is not None and last >= len(vectors):
        raise ValueError(f"candidate {last} is beyond the {len(vectors)} items that have vectors")
    if categories is not None and last >= categories.n_rows:
        raise ValueError(f"candidate {last} is beyond the {categories.n_rows} items that have categories")


@compiled
def _pick_all(
    indices: NDArray[np.int64],
    scores: NDArray[np.float32],
    rules: Rules,
    n_categories: int,
    picked_indices: NDArray[np.int64],
    picked_scores: NDArray[np.float32],
) -> None:
    width = indices.shape[1]
    room = Room(
        np.empty(width, np.float64),
        np.empty(width, np.float64),
        np.empty(width, np.bool_),
        np.empty(width, np.bool_),
        np.zeros(n_categories, np.int32),
    )
    for query in range(indices.shape[0]):
        items = indices[query]
        size = _begin(items, scores[query], rules, room)
        n_picked = min(size, picked_indices.shape[1])
        for place in range(n_picked):
            best = _next(items, size, rules, room)
            picked_indices[query, place], picked_scores[query, place] = items[best], scores[query, best]
            room.is_left[best] = False
            _count(items[best], 1, rules, room)
            if room.is_known[best]:
                _compare(items, size, items[best], rules, room)
        for place in range(n_picked):
            _count(picked_indices[query, place], -1, rules, room)


@compiled
def _begin(items: NDArray[np.int64], scores: NDArray[np.float32], rules: Rules, room: Room) -> int:
    """Prepare for the candidates of one query and give their number."""
    size = 0
    lowest, highest = np.inf, -np.inf
    while size < items.size and items[size] >= 0:
        lowest, highest = min(lowest, float(scores[size])), max(highest, float(scores[size]))
        size += 1
    for place in range(size):
        room.relevance[place] = (scores[place] - lowest) / (highest - lowest) if highest > lowest else 1.0
        room.similarity[place] = -np.inf
        room.is_left[place] = True
        room.is_known[place] = rules.weight > 0 and _is_known(rules.vectors[items[place]])
    return size


@compiled
def _is_known(vector: NDArray[np.float32]) -> bool:
    return bool(dot(vector, vector) > 0)


@compiled
def _next(items: NDArray[np.int64], size: int, rules: Rules, room: Room) -> int:
    """Find the place of the next pick; one that its categories allow goes before all others."""
    mean = _mean_similarity(size, room)
    best, best_value, is_best_allowed = -1, -np.inf, False
    for place in range(size):
        if not room.is_left[place]:
            continue
        similarity = room.similarity[place] if room.similarity[place] > -np.inf else mean
        value = (1.0 - rules.weight) * room.relevance[place] - rules.weight * similarity
        is_allowed = _is_allowed(items[place], rules, room)
        is_better = value > best_value if is_allowed == is_best_allowed else is_allowed
        if best < 0 or is_better:
            best, best_value, is_best_allowed = place, value, is_allowed
    return best


@compiled
def _mean_similarity(size: int, room: Room) -> float:
    """Average over those that are left and comparable; 0 without any."""
    total, count = 0.0, 0
    for place in range(size):
        if room.is_left[place] and room.similarity[place] > -np.inf:
            total += room.similarity[place]
            count += 1
    return total / count if count > 0 else 0.0


@compiled
def _is_allowed(item: Whole, rules: Rules, room: Room) -> bool:
    if room.counts.size > 0:
        for entry in range(rules.indptr[item], rules.indptr[item + 1]):
            if room.counts[rules.categories[entry]] >= rules.most:
                return False
    return True


@compiled
def _count(item: Whole, change: int, rules: Rules, room: Room) -> None:
    if room.counts.size > 0:
        for entry in range(rules.indptr[item], rules.indptr[item + 1]):
            room.counts[rules.categories[entry]] += change


@compiled
def _compare(items: NDArray[np.int64], size: int, picked: Whole, rules: Rules, room: Room) -> None:
    """Raise the similarities of those that are left to their cosines with what was picked."""
    vector = rules.vectors[picked]
    for place in range(size):
        if room.is_left[place] and room.is_known[place]:
            cosine = dot(rules.vectors[items[place]], vector)
            room.similarity[place] = max(room.similarity[place], cosine)
