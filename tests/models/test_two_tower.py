"""Users pooled from their items: against plain sums, and what a user without training gets."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import pool_rows
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.batches import UserBatches
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings
from recsys_spark.models.two_tower import TwoTowerModel
from tests.models.conftest import split_checkerboard, to_pairs

TWO_TOWER = {"architecture": "two_tower", "loss": "softmax", "temperature": 0.5}


def rows_of(pairs: TrainingPairs) -> CsrRows:
    return CsrRows(pairs.indptr(), pairs.item_idx, pairs.rating, pairs.n_items)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=9), st.integers(1, 20), st.integers(0, 99))
def test_pooled_rows_are_sums_over_roots(counts: list[int], dims: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    own = [np.sort(random.choice(12, count, replace=False)) for count in counts]
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = CsrRows(indptr, np.concatenate(own).astype(np.int32), np.ones(sum(counts), np.float32), 12)
    vectors = random.standard_normal((12, dims)).astype(np.float32)
    pooled = pool_rows(rows, vectors)
    for row, items in enumerate(own):
        expected = vectors[items].sum(axis=0, dtype=np.float64) / max(1, len(items)) ** 0.5
        assert pooled[row] == pytest.approx(expected, abs=1e-4)
    last = pool_rows(rows.slice_rows(len(counts) - 1, len(counts)), vectors)
    assert last[0].tolist() == pooled[-1].tolist()


@pytest.mark.parametrize("is_cosine", [False, True])
def test_a_batch_pools_one_half_and_learns_the_other(is_cosine: bool) -> None:
    pairs = to_pairs([(user, item) for user in range(3) for item in range(user, user + 5)], 3, 7)
    model = TwoTowerModel(pairs, 4, is_cosine, has_own=False, seed=5)
    vectors = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    model.items.assign(vectors)
    if is_cosine:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batch = UserBatches(pairs, 20, seed=0)[0]
    encode = tf.function(model.encode_users, jit_compile=True)
    wanted_of = {}
    for step in (0, 1):
        encoded, wanted = encode(tf.nest.map_structure(tf.constant, batch), tf.constant(step))
        (_, rows, items), _, _ = batch
        for row in range(3):
            kept = items[(rows == row) & (np.asarray(wanted) == 0)]
            expected = vectors[kept].sum(axis=0) / max(1, len(kept)) ** 0.5
            expected /= max(float(np.linalg.norm(expected)), 1e-6) if is_cosine else 1.0
            assert np.asarray(model.users.vectors_of(encoded))[row] == pytest.approx(expected, abs=1e-5)
        wanted_of[step] = np.asarray(wanted).tolist()
        assert set(wanted_of[step]) == {0.0, 1.0}
    assert wanted_of[0] != wanted_of[1]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_checkerboard_is_learned_and_the_users_are_their_items(
    own: bool, similarity: str, tiny: ModelSettings
) -> None:
    train, validation = split_checkerboard()
    chosen = tiny.model_copy(update={**TWO_TOWER, "own_embedding": own, "similarity": similarity})
    fit = fit_embeddings(train, chosen, 0, validation=validation)
    assert fit.popularity_ndcg is not None
    assert max(log.validation_ndcg or 0 for log in fit.history) > 1.5 * fit.popularity_ndcg
    if not own and similarity == "dot":
        pooled = pool_rows(rows_of(train), fit.embeddings.item_vectors)
        assert fit.embeddings.user_vectors == pytest.approx(pooled, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_a_warm_start_keeps_the_items(tiny: ModelSettings) -> None:
    train, _ = split_checkerboard(20, 20)
    earlier = fit_embeddings(train, tiny.model_copy(update={**TWO_TOWER, "similarity": "dot"}), 0, epochs=2)
    still = tiny.model_copy(update={**TWO_TOWER, "similarity": "dot", "learning_rate": 1e-12})
    warm = fit_embeddings(train, still, 1, epochs=1, warm_start=earlier.embeddings)
    assert warm.embeddings.item_vectors == pytest.approx(earlier.embeddings.item_vectors, abs=1e-6)
    assert warm.embeddings.user_vectors == pytest.approx(earlier.embeddings.user_vectors, abs=1e-5)
