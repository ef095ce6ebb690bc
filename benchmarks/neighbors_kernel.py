"""Each user's 50 nearest users by exact Euclidean distance, against other exact ways.

One thread each. A block of users is searched among all; `ns_a_pair` is the project's time by user-candidate pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from benchmarks.harness import PROJECT, Work, report, run_cases, take_turns
from benchmarks.shapes import as_scipy, movielens_20m, shop
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.distances import nearest_rows

K = 50


@dataclass(frozen=True)
class Case:
    """The first `queries` users of a matrix among its first `candidates`."""

    shape: str
    candidates: int
    queries: int
    has_peers: bool = True

    @property
    def name(self) -> str:
        """As in `movielens-20k`."""
        return f"{self.shape}-{self.candidates // 1000}k"

    def rows(self) -> CsrRows:
        """All candidates."""
        return movielens_20m(self.candidates) if self.shape == "movielens" else shop(self.candidates)


SMALL = [Case("movielens", 20_000, 4_000), Case("shop", 200_000, 2_000)]
FULL = [
    Case("movielens", 20_000, 20_000),
    Case("movielens", 138_000, 4_000, has_peers=False),
    Case("shop", 200_000, 4_000),
]


def with_sparse_dot_topn(queries: sparse.csr_matrix, candidates: sparse.csr_matrix) -> Work:
    """2 u.v - |v|^2 as one sparse product with a column for the norms; its order is that of the distances."""
    from sparse_dot_topn import sp_matmul_topn

    norms = np.asarray(candidates.multiply(candidates).sum(axis=1)).astype(np.float32)
    left = sparse.csr_matrix(sparse.hstack([2 * queries, np.ones((queries.shape[0], 1), np.float32)]))
    right = sparse.csr_matrix(sparse.hstack([candidates, -norms]).T)
    # The threshold, because without one scores below 0 are dropped.
    return lambda: sp_matmul_topn(left, right, top_n=K + 1, threshold=-1e30, sort=True, n_threads=1)


def with_scikit_learn(queries: sparse.csr_matrix, candidates: sparse.csr_matrix) -> Work:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=K + 1, algorithm="brute", n_jobs=1).fit(candidates)
    return lambda: index.kneighbors(queries)


def run(case: Case, rounds: int) -> None:
    rows = case.rows()
    some, everybody = rows.slice_rows(0, case.queries), rows
    works: dict[str, Work] = {PROJECT: lambda: nearest_rows(some, np.arange(case.queries), everybody, 0, K)}
    if case.has_peers:
        queries, candidates = as_scipy(some), as_scipy(everybody)
        works["sparse_dot_topn"] = with_sparse_dot_topn(queries, candidates)
        works["scikit_learn"] = with_scikit_learn(queries, candidates)
    seconds = take_turns(works, rounds)
    pairs = case.queries * case.candidates
    report(
        "neighbors_kernel",
        case.name,
        seconds,
        queries=case.queries,
        ratings_a_user=round(rows.nnz / rows.n_rows, 1),
        ns_a_pair=round(float(np.median(seconds[PROJECT])) / pairs * 1e9, 3),
    )


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
