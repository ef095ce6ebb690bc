from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.models import cold_items
from recsys_spark.models.cold_items import LEAST_TRAINED, FeatureMapping, map_cold_items
from recsys_spark.models.content import ItemContent
from recsys_spark.models.embeddings import Embeddings, untrained_embeddings

N_USERS, N_ITEMS, DIMS, CONTENT = 80, 400, 6, 10


MOST = 10_000
NO_TERMS = CsrRows(np.zeros(N_ITEMS + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)


def mapped_by(embeddings: Embeddings, numbers: np.ndarray, seed: int = 0, most: int = MOST) -> Embeddings:
    return map_cold_items(embeddings, ItemContent(NO_TERMS, numbers), most, seed)


def world(seed: int = 0, n_cold: int = 60) -> tuple[Embeddings, np.ndarray, np.ndarray]:
    """Items whose vectors follow from their content, nearly; the last ones are cold; gives their true vectors, too."""
    random = np.random.default_rng(seed)
    content = random.standard_normal((N_ITEMS, CONTENT)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    true = content @ random.standard_normal((CONTENT, DIMS)) + 0.1 * random.standard_normal((N_ITEMS, DIMS))
    users = random.standard_normal((N_USERS, DIMS)) * [3, 2, 1, 1, 0.5, 0.1]
    is_trained = np.arange(N_ITEMS) < N_ITEMS - n_cold
    empty = untrained_embeddings(N_USERS, DIMS, np.ones(N_ITEMS, np.int64))
    embeddings = replace(
        empty,
        user_vectors=users.astype(np.float32),
        is_trained_user=np.ones(N_USERS, bool),
        item_vectors=(true * is_trained[:, None]).astype(np.float32),
        item_biases=(content[:, 0] * is_trained).astype(np.float32),
        is_trained_item=is_trained,
    )
    return embeddings, content, true


def test_cold_items_score_as_their_content_tells() -> None:
    embeddings, content, true = world()
    content[-1] = 0  # nothing is known of it
    mapped = mapped_by(embeddings, content)
    cold = np.flatnonzero(mapped.is_mapped_item)
    assert cold.tolist() == list(range(N_ITEMS - 60, N_ITEMS - 1))
    expected = embeddings.user_vectors @ true[cold].T + content[cold, 0]
    found = embeddings.user_vectors @ mapped.item_vectors[cold].T + mapped.item_biases[cold]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.95
    assert np.abs(found - expected).mean() < 0.3 * np.abs(expected).mean()
    assert not mapped.is_scored_item[-1]
    assert mapped.item_matrix()[-1, DIMS] < -1e29, "it is behind all others"


def test_what_was_trained_keeps_its_bits() -> None:
    embeddings, content, _ = world()
    mapped = mapped_by(embeddings, content)
    trained = embeddings.is_trained_item
    np.testing.assert_array_equal(mapped.item_vectors[trained], embeddings.item_vectors[trained])
    np.testing.assert_array_equal(mapped.item_biases[trained], embeddings.item_biases[trained])
    np.testing.assert_array_equal(mapped.user_matrix(), embeddings.user_matrix())
    np.testing.assert_array_equal(mapped.is_trained_item, trained)


def test_the_mapping_is_that_of_least_squares_with_a_penalty() -> None:
    """Solved for here at once: the bias alone is free, and the users' scores are what errs."""
    embeddings, numbers, _ = world()
    random = np.random.default_rng(5)
    columns = np.stack([np.sort(random.choice(40, 3, replace=False)) for _ in range(N_ITEMS)]).astype(np.int32)
    rows = CsrRows(
        np.arange(0, 3 * N_ITEMS + 1, 3, dtype=np.int64), columns.ravel(), random.random(3 * N_ITEMS, np.float32), 40
    )
    mapped = map_cold_items(embeddings, ItemContent(rows, numbers), MOST, 0)
    dense = np.zeros((N_ITEMS, 40))
    np.put_along_axis(dense, columns.astype(np.int64), rows.values.reshape(-1, 3).astype(float), axis=1)
    features = np.hstack([dense, numbers, np.ones((N_ITEMS, 1))])
    trained = embeddings.is_trained_item
    penalty = np.diag(np.append(np.ones(features.shape[1] - 1), 0.0))
    wanted = np.column_stack([embeddings.item_vectors, embeddings.item_biases])[trained]
    gram = features[trained].T @ features[trained] + penalty
    expected = features[~trained] @ np.linalg.solve(gram, features[trained].T @ wanted)
    scores = embeddings.user_vectors @ expected[:, :-1].T + expected[:, -1]
    found = embeddings.user_vectors @ mapped.item_vectors[~trained].T + mapped.item_biases[~trained]
    np.testing.assert_allclose(found, scores, atol=0.01 * np.abs(scores).max())


def test_the_same_bits_every_time() -> None:
    embeddings, content, _ = world()
    first, second = (mapped_by(embeddings, content, seed=1).item_vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_directions_that_no_user_tells_apart_do_no_harm() -> None:
    embeddings, content, true = world()
    users = embeddings.user_vectors.copy()
    users[:, 3:] = 0
    mapped = mapped_by(replace(embeddings, user_vectors=users), content)
    cold = np.flatnonzero(mapped.is_mapped_item)
    expected, found = users @ true[cold].T, users @ mapped.item_vectors[cold].T
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.9
    assert np.abs(mapped.item_vectors[cold]).max() < 10 * np.abs(true).max()


@pytest.mark.parametrize("case", ["no cold items", "too few trained", "no users", "a hidden layer", "no content"])
def test_where_there_is_nothing_to_map_nothing_changes(case: str) -> None:
    embeddings, content, _ = world(n_cold=0 if case == "no cold items" else 60)
    if case == "too few trained":
        content[LEAST_TRAINED - 1 : N_ITEMS - 60] = 0
    if case == "no users":
        embeddings = embeddings.without_users()
    if case == "a hidden layer":
        arrays = [np.zeros(shape, np.float32) for shape in ((3, DIMS), (3, DIMS), (3,), (3,))]
        embeddings = replace(embeddings, hidden=HiddenLayer(*arrays))
    if case == "no content":
        content[:] = 0
    assert mapped_by(embeddings, content) is embeddings


def test_only_so_many_items_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by the seed."""
    embeddings, content, _ = world()
    learned: list[int] = []

    class Counted(FeatureMapping):
        def __init__(self, features: Any, wanted: np.ndarray) -> None:
            learned.append(len(wanted))
            super().__init__(features, wanted)

    monkeypatch.setattr(cold_items, "FeatureMapping", Counted)
    few, same, others = (mapped_by(embeddings, content, seed, most=50) for seed in (0, 0, 1))
    assert few.is_mapped_item.sum() == 60
    assert learned == [50, 50, 50]
    np.testing.assert_array_equal(few.item_vectors, same.item_vectors)
    assert (few.item_vectors != others.item_vectors).any()
