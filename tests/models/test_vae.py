from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.encoder import encode_rows
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import VaeSettings
from recsys_spark.models.backend import ops
from recsys_spark.models.interactions import TrainingPairs, select_trained
from recsys_spark.models.reconstruction import rows_of_pairs
from recsys_spark.models.vae import (
    HistoryAutoencoder,
    HistoryBatches,
    HistoryEncoder,
    divergence_of,
    encoder_of,
    fit_vae,
    untrained_vae,
)
from recsys_spark.models.validation import RankingValidation
from tests.models.conftest import split_checkerboard, to_pairs

SMALL = VaeSettings(embedding_dim=6, hidden_units=16, epochs=40, learning_rate=0.01, batch_users=16, patience=40)


def ndcg(train: TrainingPairs, validation: TrainingPairs, settings: VaeSettings, k: int = 10) -> float:
    """Of what the fit that is returned ranks first, by the kernels that executors score with."""
    part = select_trained(train, 1, 1)
    fit = fit_vae(part, settings, 0, validation=validation, k=k)
    referee = RankingValidation(part, validation, 100, 0, k)
    users = encode_rows(rows_of_pairs(train).take_rows(part.users[referee.users]), fit.encoder)
    return referee.ndcg_of(score_top_k(users, fit.item_vectors[part.items], referee.seen, k).indices)


def test_it_learns_who_has_which_half() -> None:
    train, validation = split_checkerboard()
    found = ndcg(train, validation, SMALL)
    popular = RankingValidation(select_trained(train, 1, 1), validation, 100, 0).popularity_ndcg()
    assert found > popular + 0.1


@pytest.mark.parametrize("k", [3, 10, 100])
def test_the_best_epoch_is_kept_and_measured_as_lists_are_made(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setattr("recsys_spark.models.validation.LISTED_AT_ONCE", 210)  # 70, 21 or 2 users
    train, validation = split_checkerboard(seed=1)
    part = select_trained(train, 1, 1)
    settings = SMALL.model_copy(update={"epochs": 100, "patience": 3})
    fit = fit_vae(part, settings, 0, validation=validation, k=k)
    ndcgs = [log.validation_ndcg for log in fit.history]
    assert len(fit.history) < settings.epochs
    assert ndcg(train, validation, settings, k) == pytest.approx(ndcgs[fit.best_epoch - 1], abs=1e-12)


@pytest.mark.parametrize("epochs", [3, None])
def test_what_is_measured_at_the_end_of_an_epoch_is_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, epochs: int | None
) -> None:
    """Averages of weights change places with those that are learned, and must be in the model when training ends."""
    made, ends = [], []

    def make(*arguments: Any) -> HistoryAutoencoder:
        made.append(HistoryAutoencoder(*arguments))
        return made[-1]

    monkeypatch.setattr("recsys_spark.models.vae.HistoryAutoencoder", make)
    train, validation = split_checkerboard(seed=1)
    settings = SMALL.model_copy(update={"patience": 3})
    fit = fit_vae(
        select_trained(train, 1, 1),
        settings,
        0,
        validation=validation,
        epochs=epochs,
        on_epoch=lambda log: ends.append(ops.convert_to_numpy(made[0].decode.kernel).T),
    )
    assert fit.best_epoch < len(ends) if epochs is None else fit.best_epoch == len(ends) == epochs
    np.testing.assert_allclose(fit.item_vectors[:, :-1], ends[fit.best_epoch - 1], rtol=1e-5, atol=1e-7)


def test_the_kernel_encodes_as_the_layers_do() -> None:
    train, _ = split_checkerboard()
    model = HistoryAutoencoder(train.n_items, SMALL, 3)
    rows = HistoryBatches(rows_of_pairs(train), train.n_users, 0)[0][0]
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.standard_normal(variable.shape).astype(np.float32))
    mean, _ = model.encoder(rows / np.sqrt(rows.sum(axis=1, keepdims=True)))
    users, items = np.nonzero(rows)
    given = rows_of_pairs(to_pairs(list(zip(users, items, strict=True)), *rows.shape))
    found = encode_rows(given, encoder_of(model.encoder))
    np.testing.assert_allclose(found[:, :-1], ops.convert_to_numpy(mean), rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_likelihood_of_both_and_the_divergence() -> None:
    model = HistoryAutoencoder(5, SMALL.model_copy(update={"dropout": 0.0, "kl_weight": 0.0}), 0)
    rows = np.array([[1, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], np.float32)
    weights = np.array([1, 1, 0], np.float32)
    model.encoder.log_variance.kernel.assign(np.zeros(model.encoder.log_variance.kernel.shape))
    model.encoder.log_variance.bias.assign(np.full(6, -60.0))  # no noise to speak of
    mean = ops.convert_to_numpy(model.encoder(rows / np.sqrt(rows.sum(axis=1, keepdims=True)))[0]).astype(np.float64)
    scores = mean @ ops.convert_to_numpy(model.decode.kernel) + ops.convert_to_numpy(model.decode.bias)
    shares = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    given = model(rows, training=True)
    each = -2 * (rows * shares).sum(axis=1)
    assert float(model.compute_loss(rows, rows, given, weights)) == pytest.approx(each[:2].sum() / 5, rel=1e-5)
    diverging = (*given[:2], np.array([7.0, 8.0, 900.0], np.float32))
    expected = (each[:2].sum() + 15) / 5
    assert float(model.compute_loss(rows, rows, diverging, weights)) == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_from_a_mixture_and_grows_with_the_items_of_a_user() -> None:
    random = np.random.default_rng(0)
    drawn, mean, log_variance, old_mean, old_log_variance = random.standard_normal((5, 2, 6)).astype(np.float32)
    found = divergence_of(drawn, (mean, log_variance), (old_mean, old_log_variance))
    normal = NormalDist().pdf

    def density(x: float, center: float, log: float) -> float:
        return normal((x - center) / np.exp(log / 2)) / np.exp(log / 2)

    expected = np.zeros(2)
    for row, place in np.ndindex(drawn.shape):
        x, log = drawn[row, place], log_variance[row, place]
        mixture = 0.15 * normal(x) + 0.1 * density(x, 0.0, 10.0)
        mixture += 0.75 * density(x, old_mean[row, place], old_log_variance[row, place])
        expected[row] += np.log(density(x, mean[row, place], log) / mixture)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    model = HistoryAutoencoder(4, SMALL.model_copy(update={"dropout": 0.0, "kl_weight": 0.5}), 0)
    for encoder in (model.encoder, model.earlier):  # the same for everybody
        encoder.mean.kernel.assign(np.zeros(encoder.mean.kernel.shape))
        encoder.log_variance.kernel.assign(np.zeros(encoder.log_variance.kernel.shape))
        encoder.log_variance.bias.assign(np.full(6, -60.0))
    _, _, weighed = model(np.array([[1, 0, 0, 0], [1, 1, 1, 0]], np.float32), training=True)
    np.testing.assert_allclose(weighed, -6 * np.log(0.75) * 0.5 * np.array([1, 3]), rtol=1e-3)


def test_the_prior_is_what_the_encoder_said_an_epoch_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made, ends = [], []

    def make(*arguments: Any) -> HistoryAutoencoder:
        made.append(HistoryAutoencoder(*arguments))
        return made[-1]

    monkeypatch.setattr("recsys_spark.models.vae.HistoryAutoencoder", make)
    monkeypatch.setattr("recsys_spark.models.vae._AVERAGED_EPOCHS", 0)  # so that the last weights are what is kept
    part = select_trained(split_checkerboard()[0], 1, 1)
    fit_vae(part, SMALL, 0, epochs=3, on_epoch=lambda log: ends.append([each.get_weights() for each in parts(made[0])]))
    for (encoder, _), (_, earlier) in pairwise(ends):
        for learned, kept in zip(encoder, earlier, strict=True):
            np.testing.assert_allclose(learned, kept, rtol=1e-5, atol=1e-6)
    assert np.abs(ends[1][0][0] - ends[1][1][0]).max() > 0.001


def parts(model: HistoryAutoencoder) -> tuple[HistoryEncoder, HistoryEncoder]:
    return model.encoder, model.earlier


def test_encoder_and_decoder_learn_apart() -> None:
    """The share by a part of the row moves no weight of the decoder, that by all of it none of the encoder."""
    import tensorflow as tf

    model = HistoryAutoencoder(6, SMALL.model_copy(update={"kl_weight": 0.0}), 0)
    rows = np.ones((2, 6), np.float32)
    with tf.GradientTape(persistent=True) as tape:
        by_part, by_all, _ = model(rows, training=True)
        part, whole = ops.sum(by_part[:, 0]), ops.sum(by_all[:, 0])
    decoder, encoder = model.decode.kernel.value, model.encoder.hidden[0].kernel.value
    assert tape.gradient(part, decoder) is None and tape.gradient(whole, encoder) is None
    assert np.abs(tape.gradient(part, encoder)).max() > 0 and np.abs(tape.gradient(whole, decoder)).max() > 0


def test_the_same_bits_every_time_in_any_order_and_others_with_another_seed() -> None:
    train, _ = split_checkerboard()
    order = np.random.default_rng(0).permutation(len(train))
    other_way = TrainingPairs(train.user_idx[order], train.item_idx[order], train.rating[order], 60, 40)
    fits = [
        fit_vae(select_trained(pairs, 1, 1), SMALL, seed, epochs=2)
        for pairs, seed in ((train, 3), (other_way, 3), (train, 4))
    ]
    for first, second in zip(
        (*fits[0].encoder, fits[0].item_vectors), (*fits[1].encoder, fits[1].item_vectors), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    assert (fits[0].item_vectors != fits[2].item_vectors).any()


def test_items_that_are_not_trained_are_not_known() -> None:
    pairs = to_pairs([(0, 1), (0, 3), (1, 1), (1, 3), (2, 3), (2, 4)], 3, 6)
    fit = fit_vae(select_trained(pairs, 1, 2), SMALL, 0, epochs=2)
    np.testing.assert_array_equal(fit.encoder.is_known, [False, True, False, True, False, False])
    np.testing.assert_array_equal(fit.item_vectors.any(axis=1), fit.encoder.is_known)
    assert len(fit.history) == 2 and fit.best_epoch == 2
    nothing = untrained_vae(6, SMALL)
    assert not encode_rows(rows_of_pairs(pairs), nothing.encoder).any()
    assert [array.shape[-1] for array in nothing.encoder[:-1]] == [array.shape[-1] for array in fit.encoder[:-1]]


def test_each_batch_has_one_shape_and_every_user_counts_once() -> None:
    train, _ = split_checkerboard()
    batches = HistoryBatches(rows_of_pairs(train), 16, 0)
    total = np.zeros(train.n_items)
    for number in range(len(batches)):
        rows, wanted, weights = batches[number]
        assert rows.shape == (16, 40) and wanted is rows
        total += weights @ rows
    np.testing.assert_array_equal(total, train.item_counts())
    first = batches[0][0]
    batches.on_epoch_end()
    assert (first != batches[0][0]).any()


def test_a_loss_that_is_no_number_says_what_to_lower() -> None:
    train, _ = split_checkerboard()
    with pytest.raises(RecsysError, match=r"training of vae diverged in epoch \d+: lower vae.learning_rate"):
        fit_vae(select_trained(train, 1, 1), SMALL.model_copy(update={"learning_rate": 1e30}), 0, epochs=5)
