"""Lists from the ratings of each user's 50 nearest users, against implicit's nearest-neighbor scorer.

One thread each, the same neighbors and similarities, sums of ratings times similarity, the user's own items left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from benchmarks.harness import PROJECT, Work, report, run_cases, take_turns
from benchmarks.shapes import as_scipy, movielens_20m, shop
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.neighbor_scoring import score_from_neighbors

NEIGHBORS = 50


@dataclass(frozen=True)
class Case:
    """Lists of k items for the first users of a matrix."""

    shape: str
    k: int
    users: int

    @property
    def name(self) -> str:
        """As in `movielens-10`."""
        return f"{self.shape}-{self.k}"


SMALL = [Case("movielens", k, 1_000) for k in (10, 100)]
FULL = [Case(shape, k, 5_000) for shape in ("movielens", "shop") for k in (10, 100)]


def with_implicit(neighbors: sparse.csr_matrix, rows: CsrRows, k: int) -> Work:
    """One call a user, as implicit makes it; k + own items are asked for, since its scorer cannot leave them out."""
    from implicit._nearest_neighbours import NearestNeighboursScorer

    matrix = as_scipy(rows).astype(np.float64)
    matrix.resize((max(matrix.shape),) * 2)  # it counts on a square one
    scorer = NearestNeighboursScorer(matrix)
    users = [neighbors[user].astype(np.float64) for user in range(neighbors.shape[0])]

    def work() -> None:
        for user, row in enumerate(users):
            own = rows.indices[rows.indptr[user] : rows.indptr[user + 1]]
            items, _ = scorer.recommend(row.indptr, row.indices, row.data, K=k + own.size, remove_own_likes=False)
            items[~np.isin(items, own)][:k]

    return work


def run(case: Case, rounds: int) -> None:
    rows = movielens_20m(20_000) if case.shape == "movielens" else shop(50_000)
    some = rows.slice_rows(0, case.users)
    nearest = nearest_rows(some, np.arange(case.users), rows, 0, NEIGHBORS)
    similarities = (1.0 / (1.0 + nearest.scores)).astype(np.float32).ravel()
    indptr = np.arange(0, similarities.size + 1, NEIGHBORS)
    lists = IndexLists(indptr, nearest.indices.astype(np.int32).ravel())
    seen = IndexLists(some.indptr, some.indices)
    matrix = sparse.csr_matrix((similarities, lists.indices, indptr), shape=(case.users, rows.n_rows))
    works: dict[str, Work] = {
        PROJECT: lambda: score_from_neighbors(rows, lists, similarities, seen, case.k, "sum"),
        "implicit": with_implicit(matrix, rows, case.k),
    }
    report("neighbor_scoring", case.name, take_turns(works, rounds), users=case.users)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
