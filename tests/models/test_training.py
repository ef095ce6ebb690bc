"""Training on catalogues whose answer is known."""

import ast
import hashlib
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest

from recsys_spark.errors import RecsysError
from recsys_spark.model_sections import Loss, ModelSettings
from recsys_spark.models.embedding import ratings_of_scores
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import EpochLog, fit_embeddings, untrained_fit
from tests.models.conftest import split_checkerboard, to_pairs

RANKING: list[Loss] = ["ials", "spectral", "softmax", "sampled_softmax", "cosine_contrastive", "bpr", "bce"]


def lists_of(embeddings: Embeddings, seen: TrainingPairs, k: int) -> np.ndarray:
    """The k best unseen items of each user, by a full sort."""
    user_matrix, item_matrix = embeddings.scoring_vectors()
    scores = user_matrix @ item_matrix.T
    scores[seen.user_idx, seen.item_idx] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("loss", RANKING)
def test_a_checkerboard_of_tastes_is_learned(loss: str, tiny: ModelSettings) -> None:
    train, validation = split_checkerboard()
    logs: list[EpochLog] = []
    # Two tastes are two singular vectors; more of them would be noise. So few items are not worth a sharp softmax.
    dims = 2 if loss == "spectral" else tiny.embedding_dim
    chosen = {"loss": loss, "embedding_dim": dims, "temperature": 0.5, "spectral_start": False}
    settings = tiny.model_copy(update=chosen)
    fit = fit_embeddings(train, settings, 0, validation=validation, on_epoch=logs.append)
    users = np.arange(train.n_users)[:, None]
    assert (lists_of(fit.embeddings, train, 5) % 2 == users % 2).mean() > 0.98
    assert tuple(logs) == fit.history
    assert [log.epoch for log in logs] == list(range(1, len(logs) + 1))
    best = max(log.validation_ndcg or 0 for log in logs)
    assert (fit.history[fit.best_epoch - 1].validation_ndcg or 0) >= best - 3e-4
    assert fit.popularity_ndcg is not None
    assert best > 1.5 * fit.popularity_ndcg


@pytest.mark.parametrize("loss", ["mse", "rating_bce"])
def test_the_ratings_of_two_tastes_are_predicted(loss: str, tiny: ModelSettings) -> None:
    random = np.random.default_rng(0)
    listed = [(user, item) for user in range(60) for item in range(40) if random.random() < 0.4]
    pairs = to_pairs(listed, 60, 40, [0.9 if user % 2 == item % 2 else 0.2 for user, item in listed])
    settings = tiny.model_copy(update={"loss": loss, "epochs": 60})
    user_matrix, item_matrix = fit_embeddings(pairs, settings, 0).embeddings.scoring_vectors()
    predicted = ratings_of_scores(user_matrix @ item_matrix.T, settings.is_logistic)
    truth = np.where(np.arange(60)[:, None] % 2 == np.arange(40) % 2, 0.9, 0.2)
    assert np.sqrt(np.mean((predicted - truth) ** 2)) < 0.1


@pytest.mark.parametrize(("loss", "architecture"), [("mse", "dot"), ("mse", "neumf"), ("rating_bce", "dot")])
def test_the_epoch_of_the_least_error_is_kept(loss: str, architecture: str, tiny: ModelSettings) -> None:
    random = np.random.default_rng(1)
    listed = [(user, item) for user in range(40) for item in range(30) if random.random() < 0.5]
    ratings = [
        min(1.0, max(0.0, (0.8 if user % 2 == item % 2 else 0.3) + random.normal(0, 0.2))) for user, item in listed
    ]
    is_held = random.random(len(listed)) < 0.2
    train, validation = (
        to_pairs(
            [pair for pair, is_other in zip(listed, left_out, strict=True) if not is_other],
            41,
            31,
            [rating for rating, is_other in zip(ratings, left_out, strict=True) if not is_other],
        )
        for left_out in (is_held, ~is_held)
    )
    chosen = {"loss": loss, "architecture": architecture, "l2": 0.0, "batch_size": 64, "epochs": 40}
    fit = fit_embeddings(train, tiny.model_copy(update=chosen), 0, validation=validation)
    errors = [log.validation_rmse or 9.0 for log in fit.history]
    assert errors[fit.best_epoch - 1] <= min(errors) + 3e-4
    assert len(errors) < 40, "it overfits, and stops"
    if architecture == "dot":
        user_matrix, item_matrix = fit.embeddings.scoring_vectors()
        scores = (user_matrix @ item_matrix.T)[validation.user_idx, validation.item_idx]
        found = ratings_of_scores(scores, loss == "rating_bce")
        assert errors[fit.best_epoch - 1] == pytest.approx(np.sqrt(np.mean((found - validation.rating) ** 2)), rel=1e-4)


def test_without_validation_it_runs_the_epochs_it_is_told(tiny: ModelSettings) -> None:
    train, validation = split_checkerboard(20, 20)
    fit = fit_embeddings(train, tiny, 0, epochs=2)
    assert (len(fit.history), fit.best_epoch, fit.popularity_ndcg) == (2, 2, None)
    assert fit.history[0].validation_ndcg is None
    watched = fit_embeddings(train, tiny, 0, epochs=2, validation=validation)
    assert watched.best_epoch == 2
    assert watched.history[1].validation_ndcg is not None
    assert digest(watched.embeddings) == digest(fit.embeddings)


def digest(embeddings: Embeddings) -> str:
    values = [getattr(embeddings, field.name) for field in fields(Embeddings) if field.name != "hidden"]
    arrays = [np.asarray(value).tobytes() for value in (*values, *(embeddings.hidden or ()))]
    return hashlib.sha256(b"".join(arrays)).hexdigest()


def digest_of_a_fit(order: int, loss: Loss) -> str:
    train, validation = split_checkerboard(20, 20)
    shuffled = np.random.default_rng(order).permutation(len(train))
    train = TrainingPairs(train.user_idx[shuffled], train.item_idx[shuffled], train.rating[shuffled], 20, 20)
    settings = ModelSettings(loss=loss, embedding_dim=8, batch_size=50, epochs=4, validation_users=15)
    return digest(fit_embeddings(train, settings, 3, validation=validation).embeddings)


def digests_of_fits(order: int) -> dict[str, str]:
    return {loss: digest_of_a_fit(order, loss) for loss in get_args(Loss)}


@pytest.mark.slow
def test_another_process_and_another_order_give_the_same_bits_and_no_noise() -> None:
    code = "from tests.models.test_training import digests_of_fits; print(digests_of_fits({}))"
    run = subprocess.run([sys.executable, "-c", code.format(1)], check=True, capture_output=True, text=True)
    assert ast.literal_eval(run.stdout) == digests_of_fits(2)
    assert run.stderr == ""


def test_the_penalty_is_the_one_given_or_the_default_of_the_loss() -> None:
    assert ModelSettings(loss="bpr", l2=0.5).l2_penalty == 0.5
    assert ModelSettings(loss="bpr", l2=0.0).l2_penalty == 0.0
    assert ModelSettings(loss="mse").l2_penalty == 0.02


def test_cosines_have_vectors_of_length_one_and_no_biases(tiny: ModelSettings) -> None:
    train, _ = split_checkerboard(20, 20)
    embeddings = fit_embeddings(train, tiny.model_copy(update={"loss": "softmax"}), 0, epochs=2).embeddings
    for vectors in (embeddings.user_vectors, embeddings.item_vectors):
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, rel=1e-5)
    assert not embeddings.item_biases.any()
    dots = tiny.model_copy(update={"loss": "softmax", "similarity": "dot"})
    assert fit_embeddings(train, dots, 0, epochs=2).embeddings.item_biases.any()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ials", "softmax"])
def test_a_spectral_start_needs_fewer_epochs(loss: Loss, tiny: ModelSettings) -> None:
    train, validation = split_checkerboard(seed=1)
    chosen = tiny.model_copy(update={"loss": loss, "embedding_dim": 2, "temperature": 0.5})
    first = [
        fit_embeddings(train, chosen.model_copy(update={"spectral_start": start}), 0, validation=validation, epochs=1)
        for start in (True, False)
    ]
    spectral, random = (fit.history[0].validation_ndcg or 0.0 for fit in first)
    assert spectral > 1.1 * random


def test_a_spectral_start_of_too_few_items_is_a_random_one(tiny: ModelSettings) -> None:
    pairs = to_pairs([(0, 0), (1, 1), (2, 0), (2, 1)], 3, 2)
    fits = [
        fit_embeddings(pairs, tiny.model_copy(update={"loss": "bpr", "spectral_start": start}), 0, epochs=1)
        for start in (True, False)
    ]
    assert digest(fits[0].embeddings) == digest(fits[1].embeddings)


def test_a_warm_start_needs_fewer_epochs_and_takes_in_new_users_and_items(tiny: ModelSettings) -> None:
    before, _ = split_checkerboard(50, 36)
    train, validation = split_checkerboard(60, 40)
    settings = tiny.model_copy(update={"epochs": 30, "learning_rate": 0.03})
    earlier = fit_embeddings(before, settings, 0, epochs=12).embeddings
    cold = fit_embeddings(train, settings, 1, validation=validation, epochs=12)
    warm = fit_embeddings(train, settings, 1, validation=validation, epochs=12, warm_start=earlier)

    def epochs_to_reach(goal: float, history: tuple[EpochLog, ...]) -> int:
        return next((log.epoch for log in history if (log.validation_ndcg or 0) >= goal), 99)

    goal = 0.95 * max(log.validation_ndcg or 0 for log in cold.history)
    assert epochs_to_reach(goal, warm.history) < epochs_to_reach(goal, cold.history)
    assert warm.embeddings.user_vectors.shape == (60, 8)
    new_users = np.arange(50, 60)
    own_half = lists_of(warm.embeddings, train, 5)[new_users] % 2 == new_users[:, None] % 2
    assert own_half.mean() > 0.9


@pytest.mark.slow
def test_a_warm_start_of_cosines_goes_on_in_steps_as_large_as_before(
    tiny: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One batch an epoch, nothing sampled and nothing forgotten: what is left of the break are the lengths.
    monkeypatch.setattr("recsys_spark.models.tables.CARRIED_SQUARES", 1.0)
    train, _ = split_checkerboard(20, 20)
    chosen = tiny.model_copy(update={"loss": "softmax", "batch_size": len(train), "temperature": 0.3})
    before, through = (fit_embeddings(train, chosen, 0, epochs=epochs).embeddings for epochs in (5, 6))
    warm = fit_embeddings(train, chosen, 0, epochs=1, warm_start=before).embeddings
    for side in ("user_vectors", "item_vectors"):
        old, wanted, found = (getattr(embeddings, side) for embeddings in (before, through, warm))
        steps = [np.linalg.norm(new - old) for new in (wanted, found)]
        assert np.sum((wanted - old) * (found - old)) > 0.98 * steps[0] * steps[1]
        assert 0.75 < steps[1] / steps[0] < 1.25


def test_a_warm_start_copies_known_rows_and_starts_new_ones() -> None:
    settings = ModelSettings(loss="bpr", embedding_dim=4, learning_rate=1e-12, l2=0)
    before = to_pairs([(0, 0), (1, 1)], 3, 3)  # user 2 and item 2 are known but not trained
    earlier = fit_embeddings(before, settings, 0, epochs=1).embeddings
    grown = to_pairs([(0, 0), (1, 1), (2, 2), (4, 3)], 5, 4)
    warm = fit_embeddings(grown, settings, 9, epochs=1, warm_start=earlier).embeddings
    assert warm.user_vectors[:2] == pytest.approx(earlier.user_vectors[:2], abs=1e-6)
    assert warm.item_vectors[:2] == pytest.approx(earlier.item_vectors[:2], abs=1e-6)
    assert (np.abs(warm.user_vectors[[2, 4]]).max(axis=1) > 1e-3).all()
    assert warm.is_trained_user.tolist() == [True, True, True, False, True]
    assert not warm.user_vectors[3].any()


def test_a_warm_start_that_does_not_fit_is_refused(tiny: ModelSettings) -> None:
    earlier = fit_embeddings(to_pairs([(0, 0), (1, 1)], 2, 2), tiny, 0, epochs=1).embeddings
    with pytest.raises(ValueError, match="warm_start has 2 users, 2 items and 8 dimensions"):
        fit_embeddings(to_pairs([(0, 0)], 1, 2), tiny, 0, epochs=1, warm_start=earlier)
    with pytest.raises(ValueError, match=r"and 4$"):
        settings = tiny.model_copy(update={"embedding_dim": 4})
        fit_embeddings(to_pairs([(0, 0)], 2, 2), settings, 0, epochs=1, warm_start=earlier)


def test_users_and_items_with_few_interactions_are_not_trained(tiny: ModelSettings) -> None:
    pairs = to_pairs([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 2)], 4, 3)
    settings = tiny.model_copy(update={"min_user_interactions": 2, "min_item_interactions": 2})
    embeddings = fit_embeddings(pairs, settings, 0, epochs=2).embeddings
    assert embeddings.is_trained_user.tolist() == [True, True, False, False]
    assert embeddings.is_trained_item.tolist() == [True, True, False]
    assert lists_of(embeddings, to_pairs([], 4, 3), 3)[2:].tolist() == [[0, 1, 2], [0, 1, 2]]  # by popularity
    assert lists_of(embeddings, to_pairs([], 4, 3), 3)[:2, 2].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("loss", "listed", "n_users", "n_items"),
    [
        ("mse", [(0, 0)], 1, 1),
        ("bpr", [(0, 0)], 1, 1),
        ("bce", [(0, 0), (0, 2)], 1, 3),
        ("bpr", [(0, 0), (2, 0)], 3, 1),
        ("ials", [(0, 0)], 1, 1),
        ("softmax", [(0, 0)], 1, 1),
        ("sampled_softmax", [(0, 0), (2, 0)], 3, 1),
        ("cosine_contrastive", [(0, 0), (0, 2)], 1, 3),
    ],
)
def test_the_smallest_catalogues_train(
    loss: str, listed: list[tuple[int, int]], n_users: int, n_items: int, tiny: ModelSettings
) -> None:
    pairs = to_pairs(listed, n_users, n_items, [0.5] * len(listed))  # all ratings equal, too
    fit = fit_embeddings(pairs, tiny.model_copy(update={"loss": loss}), 0, epochs=2)
    user_matrix, item_matrix = fit.embeddings.scoring_vectors()
    assert np.isfinite(user_matrix @ item_matrix.T).all()


def test_validation_without_a_trained_user_counts_as_none(tiny: ModelSettings) -> None:
    fit = fit_embeddings(to_pairs([(0, 0)], 2, 2), tiny, 0, validation=to_pairs([(1, 1)], 2, 2))
    assert len(fit.history) == fit.best_epoch == tiny.epochs
    assert fit.history[0].validation_ndcg is None


def test_validation_of_another_catalogue_is_refused(tiny: ModelSettings) -> None:
    with pytest.raises(ValueError, match="validation has 3 users and 2 items"):
        fit_embeddings(to_pairs([(0, 0)], 2, 2), tiny, 0, validation=to_pairs([(1, 1)], 3, 2))


def test_training_that_diverges_stops_with_advice(tiny: ModelSettings) -> None:
    train, _ = split_checkerboard(20, 20)
    settings = tiny.model_copy(update={"loss": "mse", "learning_rate": 1e20})
    with pytest.raises(RecsysError, match=r"lower model.learning_rate"):
        fit_embeddings(train, settings, 0)


def test_an_untrained_fit_gives_everybody_what_is_popular(tiny: ModelSettings) -> None:
    pairs = to_pairs([(0, 2), (1, 2), (1, 0)], 3, 4)
    fit = untrained_fit(pairs, tiny)
    assert (fit.history, fit.best_epoch) == ((), tiny.epochs)
    assert lists_of(fit.embeddings, to_pairs([], 3, 4), 4).tolist() == [[2, 0, 1, 3]] * 3
    warm = fit_embeddings(pairs, tiny, 0, epochs=1, warm_start=fit.embeddings)
    cold = fit_embeddings(pairs, tiny, 0, epochs=1)
    assert digest(warm.embeddings) == digest(cold.embeddings)
