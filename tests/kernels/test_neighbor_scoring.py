import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.neighbor_scoring import NeighborMode, score_from_neighbors, sum_votes
from recsys_spark.kernels.topk import merge_top_k
from tests.kernels.cases import NOT_STORED, lists_of, nothing, rows_of, sparse_rows

#            item 0  item 1      item 2      item 3
ROWS = rows_of(
    [
        [1.0, 0.5, NOT_STORED, NOT_STORED],
        [0.5, NOT_STORED, 1.0, NOT_STORED],
        [NOT_STORED, 1.0, 0.0, NOT_STORED],
    ]
)


def _similar(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


class TestByHand:
    def test_sums(self) -> None:
        best = score_from_neighbors(ROWS, lists_of([[0, 1, 2]]), _similar(0.5, 0.25, 0.25), nothing(1), 3, "sum")
        # item 0: 0.5 * 1 + 0.25 * 0.5; item 1: 0.5 * 0.5 + 0.25 * 1; item 2: 0.25 * 1 + 0.25 * 0
        assert best.indices.tolist() == [[0, 1, 2]]
        assert best.scores.tolist() == [[0.625, 0.5, 0.25]]
        assert (best.indices.dtype, best.scores.dtype) == (np.int64, np.float32)

    def test_means_divide_by_the_weights_of_those_that_have_the_item(self) -> None:
        neighbors = lists_of([[0, 1, 2]])
        best = score_from_neighbors(ROWS, neighbors, _similar(0.5, 0.25, 0.25), nothing(1), 4, "mean")
        # item 0: 0.625 / 0.75; item 1: 0.5 / 0.75; item 2: 0.25 / 0.5; item 3: nobody has it
        assert best.indices.tolist() == [[0, 1, 2, -1]]
        assert best.scores.tolist() == [pytest.approx([0.625 / 0.75, 0.5 / 0.75, 0.5, -np.inf])]

    def test_shrinkage_holds_back_what_few_neighbors_have(self) -> None:
        neighbors, similarities = lists_of([[0, 1, 2]]), _similar(0.5, 0.25, 0.25)
        best = score_from_neighbors(ROWS, neighbors, similarities, nothing(1), 3, "mean", shrinkage=0.25)
        assert best.scores.tolist() == [pytest.approx([0.625, 0.5, 0.25 / 0.75])]
        same = score_from_neighbors(ROWS, neighbors, similarities, nothing(1), 3, "sum", shrinkage=9.0)
        assert same.scores.tolist() == [[0.625, 0.5, 0.25]]

    def test_excluded_items_padding_and_queries_without_neighbors(self) -> None:
        neighbors = lists_of([[-1, 1], [], [2, -1]])
        excluded = lists_of([[2], [0], [2, 1, 7]])
        best = score_from_neighbors(ROWS, neighbors, _similar(np.nan, 1, 1, 1), excluded, 2, "mean")
        assert best.indices.tolist() == [[0, -1], [-1, -1], [-1, -1]]

    def test_items_of_neighbors_without_weight_score_zero(self) -> None:
        best = score_from_neighbors(ROWS, lists_of([[0]]), _similar(0.0), nothing(1), 2, "mean")
        assert (best.indices.tolist(), best.scores.tolist()) == ([[0, 1]], [[0.0, 0.0]])

    def test_dislike_counts_in_sums(self) -> None:
        best = score_from_neighbors(ROWS, lists_of([[0, 1]]), _similar(-1.0, 1.0), nothing(1), 3, "sum")
        assert best.indices.tolist() == [[2, 0, 1]]
        assert best.scores.tolist() == [[1.0, -0.5, -0.5]]

    def test_all_votes_at_once(self) -> None:
        similarities = _similar(0.5, 0.25, 0.25, np.nan, -1.0)
        votes = sum_votes(ROWS, lists_of([[0, 1, 2], [], [-1, 1]]), similarities)
        assert votes.tolist() == [[0.625, 0.5, 0.25, 0.0], [0.0] * 4, [-0.5, 0.0, -1.0, 0.0]]
        assert votes.dtype == np.float32

    def test_votes_that_are_no_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="query row 1 has a similarity that is not finite"):
            sum_votes(ROWS, lists_of([[0], [1]]), _similar(1.0, np.inf))
        with pytest.raises(ValueError, match="query row 0 has a score that is not a finite float32"):
            sum_votes(ROWS, lists_of([[0, 0]]), _similar(3e38, 3e38))


def _brute_force(
    rows: CsrRows,
    neighbors: list[list[int]],
    similarities: list[float],
    excluded: list[list[int]],
    k: int,
    mode: NeighborMode,
    shrinkage: float,
) -> tuple[list[list[int]], list[list[float]]]:
    indices, scores, weight_of = [], [], iter(similarities)
    for query, listed in enumerate(neighbors):
        sums: dict[int, float] = {}
        weights: dict[int, float] = {}
        for row in listed:
            weight = float(np.float32(next(weight_of)))
            for entry in range(rows.indptr[row], rows.indptr[row + 1]):
                item = int(rows.indices[entry])
                sums[item] = sums.get(item, 0.0) + weight * float(rows.values[entry])
                weights[item] = weights.get(item, 0.0) + weight
        if mode == "mean":
            divisors = {item: weights[item] + shrinkage for item in sums}
            sums = {item: sums[item] / divisors[item] if divisors[item] > 0 else 0.0 for item in sums}
        ranked = sorted((-float(np.float32(score)), item) for item, score in sums.items())
        best = [(item, -score) for score, item in ranked if item not in excluded[query]][:k]
        missing = k - len(best)
        indices.append([item for item, _ in best] + [-1] * missing)
        scores.append([score for _, score in best] + [-np.inf] * missing)
    return indices, scores


@st.composite
def _queries(draw: st.DrawFn, rows: CsrRows) -> tuple[list[list[int]], list[float], list[list[int]]]:
    row = st.integers(0, max(rows.n_rows - 1, 0))
    listed = st.lists(row, max_size=min(rows.n_rows, 6), unique=True)
    neighbors = draw(st.lists(listed, max_size=6))
    weight = st.sampled_from([0.0, 0.1, 0.5, 1.0])
    n_neighbors = sum(len(each) for each in neighbors)
    similarities = draw(st.lists(weight, min_size=n_neighbors, max_size=n_neighbors))
    item = st.integers(0, rows.n_columns)
    excluded = draw(st.lists(st.lists(item, max_size=3), min_size=len(neighbors), max_size=len(neighbors)))
    return neighbors, similarities, excluded


@given(sparse_rows(max_columns=9), st.integers(1, 10), st.sampled_from(["mean", "sum"]), st.data())
@settings(max_examples=300)
def test_equals_brute_force_and_merges_over_shards_of_items(
    rows: CsrRows, k: int, mode: NeighborMode, data: st.DataObject
) -> None:
    neighbors, similarities, excluded = data.draw(_queries(rows))
    shrinkage = data.draw(st.sampled_from([0.0, 0.3]))
    arguments = lists_of(neighbors), _similar(*similarities), lists_of(excluded), k, mode, shrinkage
    try:
        best = score_from_neighbors(rows, *arguments)
    except ValueError as error:
        assert "is not a finite float32" in str(error)
        assert np.abs(rows.values).max() > 1e37
        return
    indices, scores = _brute_force(rows, neighbors, similarities, excluded, k, mode, shrinkage)
    assert best.indices.tolist() == indices
    assert best.scores.tolist() == scores
    cut = data.draw(st.integers(0, rows.n_columns))
    left = score_from_neighbors(_columns(rows, 0, cut), *arguments)
    right = score_from_neighbors(_columns(rows, cut, rows.n_columns), *arguments, first_item=cut)
    merged = merge_top_k(left, right, k, largest=True)
    assert merged.indices.tolist() == indices
    assert merged.scores.tolist() == scores


def _columns(rows: CsrRows, start: int, stop: int) -> CsrRows:
    part = rows.select((rows.indices >= start) & (rows.indices < stop))
    return CsrRows(part.indptr, part.indices - np.int32(start), part.values, stop - start)


HUGE = rows_of([[1.0], [3e38]])


@pytest.mark.parametrize(
    ("rows", "neighbors", "similarities", "changes", "message"),
    [
        (ROWS, lists_of([[0], [3]]), _similar(1, 1), {}, "query row 1 has a neighbor beyond 3 rows"),
        (ROWS, lists_of([[0], [1]]), _similar(1), {}, r"2 neighbors but similarities \(1,\)"),
        (ROWS, lists_of([[], [1]]), _similar(np.nan), {}, "query row 1 has a similarity that is not finite"),
        (ROWS, lists_of([[1], []]), _similar(-1), {}, "query row 0 has a similarity that is not finite or is negative"),
        (ROWS, lists_of([[1]]), _similar(1), {}, "1 queries but 2 lists of excluded items"),
        (ROWS, lists_of([[1], []]), _similar(1), {"k": 0}, "k must be at least 1, got 0"),
        (ROWS, lists_of([[1], []]), _similar(1), {"mode": "max"}, "mode must be one of"),
        (ROWS, lists_of([[1], []]), _similar(1), {"shrinkage": -1.0}, "shrinkage must be at least 0 and finite"),
        (HUGE, lists_of([[0], [1]]), _similar(1, 2), {"mode": "sum"}, "query row 1 has a score that is not a finite"),
        (
            CsrRows(np.array([0, 1]), np.array([5], np.int32), _similar(1), 4),
            lists_of([[0], [0]]),
            _similar(1, 1),
            {},
            "neighbor row 0 has columns that are not ascending within 0 to 4",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(
    rows: CsrRows, neighbors: IndexLists, similarities: np.ndarray, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score_from_neighbors(
            rows,
            neighbors,
            similarities,
            nothing(2),
            **{"k": 1, "mode": "mean", **changes},  # type: ignore[arg-type]
        )
