from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.content_sections import ContentSettings
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.models.content import (
    ContentAutoencoder,
    ContentBatches,
    ItemContent,
    confusion_of_halves,
    fit_content,
    reconstruction_errors,
)

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
    epochs = []
    for _ in range(2):
        halves, rows, weights = (np.concatenate(parts) for parts in zip(*(batches[n] for n in range(3)), strict=True))
        assert weights.sum() == len(items)
        assert sorted(map(tuple, rows[weights > 0])) == sorted(map(tuple, content.rows(items)))
        epochs.append((halves, rows))
        batches.on_epoch_end()
    assert (epochs[0][1] != epochs[1][1]).any()
    again, _, _ = ContentBatches(content, items, 4, seed=1)[2]
    np.testing.assert_array_equal(epochs[0][0][8:], again)


def test_batches_without_a_seed_are_the_same_each_epoch() -> None:
    content, _ = topical(n_items=20)
    batches = ContentBatches(content, np.arange(3, 14), 4, seed=None)
    first = [array.copy() for array in batches[1]]
    batches.on_epoch_end()
    for array, same in zip(batches[1], first, strict=True):
        np.testing.assert_array_equal(array, same)
    np.testing.assert_array_equal(first[1], content.rows(np.arange(7, 11)))


def test_halves_share_nothing_and_are_all_together_or_both_all() -> None:
    content, _ = topical(n_items=300, n_numbers=2)
    items = np.arange(200)[::-1]
    rows, halves = content.rows(items), content.halves(items, np.random.default_rng(0))
    is_whole = (halves == rows[:, None]).all(axis=(1, 2))
    np.testing.assert_array_equal(halves[~is_whole].sum(axis=1), rows[~is_whole])
    assert not (halves[~is_whole] != 0).all(axis=1).any()
    assert (halves != 0).any(axis=2).all(), "no half is empty"
    assert 0.05 < is_whole.mean() < 0.25, "three or five coins fall alike"
    assert 0.4 < (halves[~is_whole, 0] != 0).sum() / (rows[~is_whole] != 0).sum() < 0.6


def test_an_item_of_one_feature_is_both_of_its_halves() -> None:
    terms = CsrRows(np.array([0, 1, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), 1)
    content = ItemContent(terms, np.array([[0], [2]], np.float32))
    halves = content.halves(np.arange(2), np.random.default_rng(0))
    np.testing.assert_array_equal(halves, [[[1, 0], [1, 0]], [[0, 2], [0, 2]]])


def test_errors_of_what_is_decoded_are_those_of_the_formula() -> None:
    random = np.random.default_rng(0)
    rows, given = random.random((5, 7), np.float32), random.standard_normal((5, 7)).astype(np.float32)
    wanted = rows[:, :4] / rows[:, :4].sum(axis=1, keepdims=True)
    shares = np.exp(given[:, :4]) / np.exp(given[:, :4]).sum(axis=1, keepdims=True)
    expected = -(wanted * np.log(shares)).sum(axis=1) + ((rows - given)[:, 4:] ** 2).sum(axis=1)
    np.testing.assert_allclose(reconstruction_errors(rows, given, 4), expected, rtol=1e-5)


def test_confusion_is_that_of_the_formula_and_does_not_see_items_of_weight_zero() -> None:
    embeddings = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    units = embeddings / np.linalg.norm(embeddings, axis=2, keepdims=True)
    odds = np.exp(units[:4, 0] @ units[:4, 1].T / 0.5)
    own = np.diag(odds)
    expected = -(np.log(own / odds.sum(axis=1)) + np.log(own / odds.sum(axis=0))).mean() / 2
    weights = np.array([1, 1, 1, 1, 0], np.float32)
    np.testing.assert_allclose(confusion_of_halves(embeddings, weights, 0.5), expected, rtol=1e-5)


def test_a_loss_is_confusion_and_a_fifth_of_the_errors_of_a_quarter() -> None:
    content, _ = topical(n_items=9)
    model = ContentAutoencoder(TOPICS * WORDS, 0, 5, 0.1, seed=0)
    halves, rows, weights = ContentBatches(content, np.arange(8), 8, seed=None)[0]
    embeddings, decoded = model(halves)
    assert embeddings.shape == (8, 2, 5)
    errors = np.asarray(reconstruction_errors(rows[:2], decoded, TOPICS * WORDS))
    expected = float(confusion_of_halves(embeddings, weights, 0.1)) + 0.2 * errors.mean()
    given = model.compute_loss(halves, rows, (embeddings, decoded), weights)
    np.testing.assert_allclose(float(given), expected, rtol=1e-5)


@pytest.mark.parametrize("n_items", [0, 1, 2])
def test_catalogues_of_next_to_nothing(n_items: int) -> None:
    indptr = np.arange(n_items + 1, dtype=np.int64)
    terms = CsrRows(indptr, np.zeros(n_items, np.int32), np.ones(n_items, np.float32), 1)
    fit = fit_content(ItemContent(terms, np.zeros((n_items, 0), np.float32)), SETTINGS, seed=0)
    assert fit.vectors.shape == (n_items, 8)
    assert np.isfinite(fit.vectors).all()
    assert (fit.best_epoch > 0) == (n_items > 0)
