"""The k best items of a block of users by matrix products, against bare products and other libraries.

The limit is the fastest of several tilings of the same matrix product, with nothing done to its result. All
contenders run on one thread, the one of a Spark task. Each user has about 100 items that must not be listed.

Random vectors are of about one length, so that no search ends early. The cases of Gowalla have the vectors that
implicit's alternating least squares learns there: of all lengths, as popular as items are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.datasets import gowalla, is_there
from benchmarks.harness import LIMIT, PROJECT, Work, report, run_cases, take_turns
from recsys_spark.kernels.bounds import bounds_in_order, bounds_of_any_order, search_order, vector_norms
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.jit import compiled
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.simd import aligned

SEEN = 100
TILINGS = [(rows, columns) for rows in (256, 512, 1024) for columns in (512, 1024, 2048, 4096)]

Floats = NDArray[np.float32]


class Contest(NamedTuple):
    """Vectors of users (q, d) and items (n, d), and the items that users have seen."""

    users: Floats
    items: Floats
    seen: IndexLists


@dataclass(frozen=True)
class Case:
    """A block of users against a catalogue: of a size with random vectors, or of a data set with learned ones."""

    items: int | Literal["gowalla"]
    dims: int
    k: int
    users: int

    @property
    def name(self) -> str:
        """As in `100k-64-10`."""
        size = self.items if isinstance(self.items, str) else f"{self.items // 1000}k"
        return f"{size}-{self.dims}-{self.k}"

    def make(self) -> Contest:
        """The vectors and what users have seen."""
        if isinstance(self.items, str):
            return learned(self.dims, self.users)
        random = np.random.default_rng(0)
        users, items = (random.standard_normal((rows, self.dims), np.float32) for rows in (self.users, self.items))
        lists = [np.unique(random.integers(0, self.items, SEEN)) for _ in range(self.users)]
        indptr = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
        return Contest(users, items, IndexLists(indptr, np.concatenate(lists).astype(np.int32)))


SMALL = [
    Case(10_000, 64, 10, 2048),
    Case(10_000, 64, 100, 2048),
    Case(100_000, 64, 10, 1024),
    Case(100_000, 64, 100, 1024),
]
FULL = [
    *[Case(10_000, 64, k, 8192) for k in (10, 100)],
    *[Case(100_000, 64, k, 2048) for k in (10, 100)],
    *[Case(100_000, 128, k, 2048) for k in (10, 100)],
    *[Case(1_000_000, 64, k, 512) for k in (10, 100)],
    *[Case("gowalla", dims, k, 4096) for dims in (64, 128) for k in (10, 100)],
]


@compiled
def multiply(users: Floats, items: Floats, rows: int, columns: int, buffer: Floats) -> None:
    """The products of all tiles, each overwriting the one before."""
    for first in range(0, users.shape[0], rows):
        block = users[first : first + rows]
        for start in range(0, items.shape[0], columns):
            tile = items[start : start + columns]
            products = buffer[: block.shape[0] * tile.shape[0]].reshape(block.shape[0], tile.shape[0])
            np.dot(block, tile.T, products)


def limit(users: Floats, items: Floats, rows: int, columns: int) -> Work:
    """The product by one tiling, in a compiled loop, into room that begins with a cache line."""
    buffer = aligned((rows * columns,))
    return lambda: multiply(users, items, rows, columns, buffer)


def best_tiling(users: Floats, items: Floats) -> tuple[int, int]:
    """The fastest of `TILINGS`."""
    works = {f"{rows} {columns}": limit(users, items, rows, columns) for rows, columns in TILINGS}
    seconds = take_turns(works, 3)
    rows, columns = min(seconds, key=lambda name: float(np.median(seconds[name]))).split()
    return int(rows), int(columns)


def with_argpartition(users: Floats, items: Floats, seen: IndexLists, k: int) -> None:
    for first in range(0, len(users), 256):
        scores = users[first : first + 256] @ items.T
        for row in range(len(scores)):
            scores[row, seen.indices[seen.indptr[first + row] : seen.indptr[first + row + 1]]] = -np.inf
        top = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        np.take_along_axis(top, order, axis=1)


def peers(users: Floats, items: Floats, seen: IndexLists, k: int) -> dict[str, Work]:
    """What others do: the seen items are left out by implicit itself, and by searching k + seen for faiss."""
    import faiss
    from implicit.cpu.topk import topk

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    ones = np.ones(len(seen.indices), np.float32)
    liked = sparse.csr_matrix((ones, seen.indices, seen.indptr), shape=(len(users), len(items)))
    longest = int(np.diff(seen.indptr).max())

    seen_keys = np.repeat(np.arange(len(users)), np.diff(seen.indptr)) * len(items) + seen.indices

    def with_faiss() -> None:
        _, found = index.search(users, k + longest)
        is_new = ~np.isin(found + np.arange(len(users))[:, None] * len(items), seen_keys, assume_unique=True)
        is_kept = is_new & (np.cumsum(is_new, axis=1) <= k)
        found[is_kept].reshape(len(users), k)

    return {
        "argpartition": lambda: with_argpartition(users, items, seen, k),
        "implicit": lambda: topk(items, users, k, filter_query_items=liked, num_threads=1),
        "faiss": with_faiss,
    }


def learned(dims: int, users: int) -> Contest:
    """Vectors that implicit learns from Gowalla, of the first users."""
    from implicit.als import AlternatingLeastSquares

    pairs = gowalla()
    shape = (pairs.n_users, pairs.n_items)
    checked_in = sparse.csr_matrix((pairs.rating, (pairs.user_idx, pairs.item_idx)), shape=shape)
    model = AlternatingLeastSquares(dims, regularization=0.05, alpha=10, iterations=8, num_threads=1, random_state=0)
    model.fit(checked_in, show_progress=False)
    seen = IndexLists(pairs.indptr()[: users + 1], pairs.item_idx[: pairs.indptr()[users]])
    return Contest(np.array(model.user_factors[:users]), np.array(model.item_factors), seen)


def to_the_last_item(contest: Contest, k: int) -> Work:
    """The search with nothing known of the order of the items."""
    bounds = bounds_of_any_order(contest.items)
    return lambda: score_top_k(*contest, k, bounds=bounds)


def ending_early(contest: Contest, k: int) -> Work:
    """Items with long vectors first, until nothing ahead can be among the k best; a night sorts what was seen, too."""
    order = search_order(vector_norms(contest.items, 0))
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=np.int32)
    items, seen = contest.items[order], contest.seen
    lists = [np.sort(places[some]) for some in np.split(seen.indices, seen.indptr[1:-1])]
    masked, bounds = IndexLists(seen.indptr, np.concatenate(lists)), bounds_in_order(items)
    return lambda: score_top_k(contest.users, items, masked, k, item_idx=order, bounds=bounds)


def run(case: Case, rounds: int) -> None:
    if isinstance(case.items, str) and not is_there(case.items):
        return
    contest = case.make()
    users, items, seen = contest
    tiling, is_learned = best_tiling(users, items), isinstance(case.items, str)
    works: dict[str, Work] = {
        PROJECT: ending_early(contest, case.k) if is_learned else to_the_last_item(contest, case.k),
        LIMIT: limit(users, items, *tiling),
        **({"to_the_last_item": to_the_last_item(contest, case.k)} if is_learned else {}),
        **peers(users, items, seen, case.k),
    }
    report("scoring_kernel", case.name, take_turns(works, rounds), users=case.users, limit_tiling=list(tiling))


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
