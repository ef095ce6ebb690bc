import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.similarity import Similarity, embed_behavior, learned_similarities, ratings_of_neighbors
from tests.kernels.cases import NOT_STORED, lists_of, rows_of

#            item 0  item 1      item 2
ROWS = rows_of(
    [
        [1.0, 0.5, NOT_STORED],
        [NOT_STORED, 0.25, 0.0],
        [NOT_STORED, NOT_STORED, NOT_STORED],
    ]
)


def test_similarities_of_distances_by_hand() -> None:
    assert Similarity("inverse", 1.0).of(np.array([0.0, 1.0, 3.0])).tolist() == [1.0, 0.5, 0.25]
    gaussian = Similarity("gaussian", 2.0).of(np.array([0.0, 2.0]))
    assert gaussian.tolist() == [1.0, pytest.approx(np.exp(-0.5))]


class TestEmbeddings:
    def test_are_sums_of_the_items_of_length_one(self) -> None:
        vectors = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, -4.0]], np.float32)
        embeddings = embed_behavior(ROWS, vectors)
        # 3 and 4 make 5, whatever the ratings; 4 and -4 make nothing, as no items do
        np.testing.assert_allclose(embeddings, [[0.6, 0.8], [0.0, 0.0], [0.0, 0.0]], atol=1e-7)
        assert embeddings.dtype == np.float32

    def test_do_not_depend_on_the_other_rows(self) -> None:
        random = np.random.default_rng(0)
        rows = rows_of(np.where(random.random((40, 30)) < 0.5, 1.0, NOT_STORED).tolist())
        vectors = random.standard_normal((30, 7)).astype(np.float32)
        together = embed_behavior(rows, vectors)
        for row in range(40):
            assert (embed_behavior(rows.slice_rows(row, row + 1), vectors) == together[row]).all()

    def test_vectors_of_other_items_are_refused(self) -> None:
        with pytest.raises(ValueError, match="rows have 3 columns, but there are vectors of 2 items"):
            embed_behavior(ROWS, np.ones((2, 4), np.float32))


class TestLearnedSimilarities:
    EMBEDDINGS = np.array([[1, 0], [0, 1], [-1, 0], [0, 0]], np.float32)

    def test_by_hand(self) -> None:
        """Cosines 1 and 0 at temperature 1: e to 1, scaled to the sum of .5 + .25; the padding is not looked at."""
        given_ones = np.array([0.5, 9.0, 0.25], np.float32)
        learned = learned_similarities(
            np.array([[1, 0]], np.float32), lists_of([[0, -1, 1]]), given_ones, self.EMBEDDINGS, 1.0
        )
        total = 0.5 * np.e + 0.25
        np.testing.assert_allclose(learned[[0, 2]], [0.5 * np.e * 0.75 / total, 0.25 * 0.75 / total], rtol=1e-6)
        assert given_ones.tolist() == [0.5, 9.0, 0.25]

    def test_users_without_an_embedding_keep_the_given_ones(self) -> None:
        lists, given_ones = lists_of([[0, 1, 2], [], [3]]), np.array([0.5, 0.25, 0.125, 0.3], np.float32)
        queries = np.array([[0, 0], [1, 0], [1, 0]], np.float32)
        learned = learned_similarities(queries, lists, given_ones, self.EMBEDDINGS, 0.1)
        np.testing.assert_allclose(learned, given_ones, rtol=1e-6)

    def test_nothing_overflows_at_the_lowest_temperature(self) -> None:
        queries = self.EMBEDDINGS[:1]
        opposite = learned_similarities(queries, lists_of([[2]]), np.array([0.5], np.float32), self.EMBEDDINGS, 0.01)
        np.testing.assert_allclose(opposite, [0.5])
        none = learned_similarities(queries, lists_of([[0, 1]]), np.zeros(2, np.float32), self.EMBEDDINGS, 0.01)
        assert none.tolist() == [0.0, 0.0]

    @settings(deadline=None, max_examples=30)
    @given(seed=st.integers(0, 2**32 - 1), temperature=st.sampled_from([0.05, 0.3, 2.0]))
    def test_are_a_softmax(self, seed: int, temperature: float) -> None:
        random = np.random.default_rng(seed)
        embeddings = random.standard_normal((20, 5))
        embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
        listed = [random.permutation(20)[: random.integers(0, 9)].tolist() for _ in range(6)]
        lists = lists_of(listed)
        given_ones = random.random(lists.indices.size).astype(np.float32)
        learned = learned_similarities(embeddings[:6], lists, given_ones, embeddings, temperature)
        for query in range(6):
            place = slice(lists.indptr[query], lists.indptr[query + 1])
            weights = given_ones[place].astype(np.float64) * np.exp(
                embeddings[listed[query]].astype(np.float64) @ embeddings[query] / temperature
            )
            expected = weights / weights.sum() * given_ones[place].sum() if len(weights) else []
            np.testing.assert_allclose(learned[place], expected, rtol=1e-4, atol=1e-7)

    def test_what_does_not_match_is_refused(self) -> None:
        ones, one = np.ones(1, np.float32), self.EMBEDDINGS[:1]
        with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
            learned_similarities(one, lists_of([[0]]), ones, self.EMBEDDINGS, 0.0)
        with pytest.raises(ValueError, match="neighbor 4 is beyond 4 embeddings"):
            learned_similarities(one, lists_of([[4]]), ones, self.EMBEDDINGS, 1.0)
        with pytest.raises(ValueError, match="1 neighbors but similarities"):
            learned_similarities(one, lists_of([[0]]), np.ones(2, np.float32), self.EMBEDDINGS, 1.0)
        with pytest.raises(ValueError, match="do not match 2 lists"):
            learned_similarities(one, lists_of([[0], []]), ones, self.EMBEDDINGS, 1.0)


class TestRatingsOfNeighbors:
    def test_by_hand(self) -> None:
        neighbors = np.array([[1, 0], [2, -1]])
        ratings = ratings_of_neighbors(ROWS, neighbors, lists_of([[0, 1, 2], [1]]))
        assert ratings.tolist() == [[0.0, 1.0], [0.25, 0.5], [0.0, 0.0], [0.0, 0.0]]

    def test_a_neighbor_that_is_no_row_is_refused(self) -> None:
        with pytest.raises(ValueError, match="neighbor 3 is beyond 3 rows"):
            ratings_of_neighbors(ROWS, np.array([[3]]), lists_of([[0]]))
        with pytest.raises(ValueError, match="1 queries but 2 lists"):
            ratings_of_neighbors(ROWS, np.array([[0]]), lists_of([[0], [1]]))
