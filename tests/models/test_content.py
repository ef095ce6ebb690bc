from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.content_sections import ContentSettings
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.models.content import ContentAutoencoder, ContentBatches, ItemContent, ReconstructionLoss, fit_content

TOPICS, WORDS = 4, 12  # words of a topic
SETTINGS = ContentSettings(text=("text",), embedding_dim=8, epochs=30, learning_rate=0.02, batch_size=64)


def topical(n_items: int = 400, seed: int = 0, n_numbers: int = 0) -> tuple[ItemContent, np.ndarray]:
    """Each item has three words of its topic: two of a topic rarely share one. The last has nothing."""
    random = np.random.default_rng(seed)
    topics = random.integers(0, TOPICS, n_items)
    chosen = np.sort(np.array([random.choice(WORDS, 3, replace=False) for _ in topics]), axis=1)
    words = (topics[:, None] * WORDS + chosen)[:-1]
    indptr = np.append(np.arange(0, words.size + 1, 3), words.size).astype(np.int64)
    values = np.full(words.size, 1 / np.sqrt(3), np.float32)
    numbers = np.zeros((n_items, n_numbers), np.float32)
    numbers[:-1] += topics[:-1, None]
    return ItemContent(CsrRows(indptr, words.ravel().astype(np.int32), values, TOPICS * WORDS), numbers), topics


def share_of_topic(vectors: np.ndarray, topics: np.ndarray) -> float:
    """Of the five most similar others, how many are of the same topic."""
    products = vectors[:-1] @ vectors[:-1].T
    np.fill_diagonal(products, -np.inf)
    nearest = np.argsort(-products, axis=1)[:, :5]
    return float((topics[nearest] == topics[:-1, None]).mean())


def test_items_of_a_topic_are_alike_though_they_share_no_word() -> None:
    content, topics = topical()
    fit = fit_content(content, SETTINGS, seed=0)
    words = np.zeros((content.n_items, TOPICS * WORDS))
    words[np.repeat(np.arange(content.n_items), np.diff(content.terms.indptr)), content.terms.indices] = 1
    apart = (words @ words.T == 0) & (topics[:, None] == topics[None]) & (words.any(axis=1)[:, None])
    apart[:, -1] = False
    other = topics[:-1, None] != topics[None, :-1]
    products = fit.vectors @ fit.vectors.T
    assert share_of_topic(fit.vectors, topics) > 0.99
    assert products[apart].mean() > products[:-1, :-1][other].mean() + 0.5
    np.testing.assert_allclose(np.linalg.norm(fit.vectors[:-1], axis=1), 1, rtol=1e-5)
    assert not fit.vectors[-1].any(), "nothing is known of it"
    assert fit.history[fit.best_epoch - 1].loss == min(log.loss for log in fit.history)


def test_numbers_alone_and_beside_words() -> None:
    content, topics = topical(n_numbers=2)
    nothing = CsrRows(np.zeros(content.n_items + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
    alone = fit_content(ItemContent(nothing, content.numbers + np.float32(0.5)), SETTINGS, seed=0)
    products = alone.vectors @ alone.vectors.T
    assert products[topics == 0][:, topics == 0].min() > products[topics == 0][:, topics == 3].max()
    assert share_of_topic(fit_content(content, SETTINGS, seed=0).vectors, topics) > 0.99


def test_the_same_bits_every_time_and_others_with_another_seed() -> None:
    content, _ = topical()
    settings = SETTINGS.model_copy(update={"epochs": 2})
    first, second, other = (fit_content(content, settings, seed).vectors for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_items_that_are_not_trained_on_are_embedded() -> None:
    content, topics = topical()
    fit = fit_content(content, SETTINGS.model_copy(update={"max_trained_items": 150}), seed=0)
    assert share_of_topic(fit.vectors, topics) > 0.95


def test_batches_hold_each_item_once_and_fill_up_at_weight_zero() -> None:
    content, _ = topical(n_items=20, n_numbers=1)
    items = np.arange(3, 14)
    batches = ContentBatches(content, items, 4, seed=1)
    orders = []
    for _ in range(2):
        rows, weights = (
            np.concatenate([batches[n][0] for n in range(3)]),
            np.concatenate([batches[n][2] for n in range(3)]),
        )
        assert weights.sum() == len(items)
        assert sorted(map(tuple, rows[weights > 0])) == sorted(map(tuple, content.rows(items)))
        orders.append(rows.copy())
        batches.on_epoch_end()
    assert (orders[0] != orders[1]).any()
    features, wanted, _ = batches[0]
    np.testing.assert_allclose(wanted[:, :-1].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(wanted[:, -1], features[:, -1])


def test_the_loss_is_that_of_the_formula() -> None:
    random = np.random.default_rng(0)
    wanted, given = random.random((5, 7), np.float32), random.standard_normal((5, 7)).astype(np.float32)
    shares = np.exp(given[:, :4]) / np.exp(given[:, :4]).sum(axis=1, keepdims=True)
    expected = -(wanted[:, :4] * np.log(shares)).sum(axis=1) + ((wanted - given)[:, 4:] ** 2).sum(axis=1)
    np.testing.assert_allclose(ReconstructionLoss(4).call(wanted, given), expected, rtol=1e-5)


def test_hidden_features_are_drawn_anew_in_training_only() -> None:
    model = ContentAutoencoder(6, 3, 0.5, seed=0)
    rows = np.ones((2, 6), np.float32)
    first, second = (np.asarray(model(rows, training=True)) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(np.asarray(model(rows)), np.asarray(model(rows)))


@pytest.mark.parametrize("n_items", [0, 1, 2])
def test_catalogues_of_next_to_nothing(n_items: int) -> None:
    indptr = np.arange(n_items + 1, dtype=np.int64)
    terms = CsrRows(indptr, np.zeros(n_items, np.int32), np.ones(n_items, np.float32), 1)
    fit = fit_content(ItemContent(terms, np.zeros((n_items, 0), np.float32)), SETTINGS, seed=0)
    assert fit.vectors.shape == (n_items, 8)
    assert np.isfinite(fit.vectors).all()
    assert (fit.best_epoch > 0) == (n_items > 0)
