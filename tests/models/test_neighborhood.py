"""The learned similarity: against a prediction in float64 from dense rows, and on catalogues with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.similarity import embed_behavior, learned_similarities
from recsys_spark.model_sections import NeighborhoodSettings
from recsys_spark.models.interactions import TrainedPart, TrainingPairs
from recsys_spark.models.neighborhood import SMOOTHING, NeighborhoodModel, fit_neighborhood
from recsys_spark.models.neighborhood_validation import NeighborhoodReferee
from recsys_spark.models.reconstruction import FOLDS, NearestUsers, ReconstructionBatches, rows_of_pairs
from recsys_spark.models.validation import RankingValidation
from recsys_spark.sections import NeighborSettings
from tests.models.conftest import to_pairs

TINY = NeighborhoodSettings(embedding_dim=8, epochs=4, patience=10)
SEARCH = NeighborSettings(k=7)
POPULAR, HALF = 40, 20


def _random_pairs(n_users: int = 25, n_items: int = 18, seed: int = 1) -> TrainingPairs:
    random = np.random.default_rng(seed)
    taken = np.argwhere(random.random((n_users, n_items)) < 0.4)
    return to_pairs([tuple(pair) for pair in taken.tolist()], n_users, n_items, random.random(len(taken)).tolist())


def _drowned(n_users: int = 120, seed: int = 0) -> tuple[TrainingPairs, TrainingPairs]:
    """Everybody has most of the popular items; beside them four of their half are to be trained on, two held out.

    Whom two users lack among the popular ones tells nothing, and tells their distance more than their halves.
    """
    random = np.random.default_rng(seed)
    train, validation = [], []
    for user in range(n_users):
        half = POPULAR + HALF * (user % 2) + random.permutation(HALF)
        train += [(user, item) for item in np.flatnonzero(random.random(POPULAR) < 0.8)]
        train += [(user, item) for item in half[2:6]]
        validation += [(user, item) for item in half[:2]]
    return to_pairs(train, n_users, POPULAR + 2 * HALF), to_pairs(validation, n_users, POPULAR + 2 * HALF)


def _dense(pairs: TrainingPairs) -> NDArray[np.float64]:
    dense = np.zeros((pairs.n_users, pairs.n_items))
    dense[pairs.user_idx, pairs.item_idx] = pairs.rating
    return dense


def test_predictions_equal_those_of_dense_rows() -> None:
    """Neighbors by distance from what is known of a user, weights, votes and shares, all anew in float64."""
    pairs, temperature, k = _random_pairs(), 0.3, 7
    rows = rows_of_pairs(pairs)
    batches = ReconstructionBatches(rows, NearestUsers(rows, SEARCH), seed=3, batch_users=10)
    model = NeighborhoodModel(rows, 4, temperature)
    model.items.assign(np.random.default_rng(2).standard_normal((pairs.n_items, 4)))
    model.renew_keys()
    full, is_seen, items = _dense(pairs), _dense(pairs) != 0, model.items.numpy().astype(np.float64)
    predicted, expected = [], []
    for batch in range(len(batches)):
        inputs, weights = batches[batch]
        predicted += model(inputs).numpy()[weights > 0].tolist()
        for user in batches._users[batch * 10 : (batch + 1) * 10]:
            targets = batches._targets.indices[batches._targets.indptr[user] : batches._targets.indptr[user + 1]]
            is_known = is_seen[user].copy()
            is_known[targets] = False
            distances = np.sqrt(((full - full[user] * is_known) ** 2).sum(axis=1))
            distances[user] = np.inf
            nearest = np.lexsort((np.arange(len(full)), distances))[:k]
            sums = np.vstack([is_known, is_seen[nearest]]) @ items
            sums /= np.linalg.norm(sums, axis=1, keepdims=True)
            a = np.exp(sums[1:] @ sums[0] / temperature) / (1 + distances[nearest])
            votes = np.where(is_known, 0, a @ full[nearest])
            expected += ((1 - SMOOTHING) * votes / votes.sum() + SMOOTHING / len(items))[targets].tolist()
    assert len(expected) > 20
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)


def test_each_pair_is_reconstructed_once_in_five_epochs_without_the_users_own_row() -> None:
    pairs = _random_pairs()
    rows = rows_of_pairs(pairs)
    batches = ReconstructionBatches(rows, NearestUsers(rows, NeighborSettings(k=24)), seed=0, batch_users=8)
    reconstructed, seen = np.zeros(len(pairs), int), []
    for _ in range(FOLDS):
        chosen = set(batches._users.tolist())
        handed_out = [(user, item) for user in chosen for item in batches._targets.indices[
            batches._targets.indptr[user] : batches._targets.indptr[user + 1]
        ]]  # fmt: skip
        keys = [user * pairs.n_items + int(item) for user, item in handed_out]
        reconstructed += np.isin(pairs.user_idx.astype(int) * pairs.n_items + pairs.item_idx, keys)
        near, users = batches._near.neighbors, np.arange(pairs.n_users)
        assert not (near == users[:, None]).any()
        assert (np.sort(near, axis=1) == [np.delete(users, user) for user in users]).all(), "all others, with k = 24"
        weights = np.concatenate([batches[batch][1] for batch in range(len(batches))])
        assert weights.sum() == pytest.approx(len(batches._users)), "a user's pairs weigh 1 together"
        seen.append(tuple(batches._users))
        batches.on_epoch_end()
    assert (reconstructed == 1).all()
    assert len(set(seen)) == FOLDS, "another order in each epoch"


class TestKnownAnswer:
    TRAIN, VALIDATION = _drowned()
    SEARCH = NeighborSettings(k=60)
    SETTINGS = NeighborhoodSettings(embedding_dim=16, epochs=30, patience=30, temperature=0.2)

    def _ndcg(self, item_vectors: NDArray[np.float32]) -> float:
        """Of lists without the popular items, as if everybody had had all of them."""
        n_users, n_items = self.TRAIN.n_users, self.TRAIN.n_items
        seen = _dense(self.TRAIN) > 0
        seen[:, :POPULAR] = True
        had = to_pairs([tuple(pair) for pair in np.argwhere(seen).tolist()], n_users, n_items)
        part = TrainedPart(had, had, np.arange(n_users), np.arange(n_items))
        validation = RankingValidation(part, self.VALIDATION, 1000, 0)
        nearest = NearestUsers(rows_of_pairs(self.TRAIN), self.SEARCH)
        return NeighborhoodReferee(validation, nearest, self.SETTINGS.temperature).ndcg(item_vectors)

    def _share_of_own_half(self, item_vectors: NDArray[np.float32]) -> float:
        rows, users = rows_of_pairs(self.TRAIN), np.arange(self.TRAIN.n_users)
        neighbors, similarities = NearestUsers(rows, self.SEARCH).of(rows).lists(users)
        embeddings = embed_behavior(rows, item_vectors)
        learned = learned_similarities(embeddings, neighbors, similarities, embeddings, self.SETTINGS.temperature)
        is_own = neighbors.indices % 2 == np.repeat(users % 2, np.diff(neighbors.indptr))
        return float(learned[is_own].sum() / learned.sum())

    def test_the_half_that_a_user_belongs_to_is_found(self) -> None:
        fit = fit_neighborhood(self.TRAIN, self.SETTINGS, self.SEARCH, 0)
        plain = np.zeros_like(fit.item_vectors)
        assert self._share_of_own_half(plain) < 0.65, "the distance hardly tells"
        assert self._share_of_own_half(fit.item_vectors) > 0.9
        assert self._ndcg(fit.item_vectors) > 1.2 * self._ndcg(plain)
        losses = [log.loss for log in fit.history]
        assert len(losses) == fit.best_epoch == 30
        assert np.mean(losses[-FOLDS:]) < np.mean(losses[:FOLDS])

    def test_the_best_epoch_is_kept(self) -> None:
        settings = self.SETTINGS.model_copy(update={"patience": 2})
        fit = fit_neighborhood(self.TRAIN, settings, self.SEARCH, 0, validation=self.VALIDATION)
        ndcgs = [log.validation_ndcg for log in fit.history]
        assert 1 <= fit.best_epoch == len(ndcgs) - 2 < 30
        again = fit_neighborhood(self.TRAIN, settings, self.SEARCH, 0, epochs=fit.best_epoch)
        assert (again.item_vectors == fit.item_vectors).all()


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["none", "tfidf", "bm25"])
def test_the_same_bits_in_any_order_of_pairs(weighting: str) -> None:
    pairs, search = _random_pairs(), NeighborSettings(k=5, weighting=weighting)  # type: ignore[arg-type]
    order = np.random.default_rng(5).permutation(len(pairs))
    arrays = (array[order] for array in (pairs.user_idx, pairs.item_idx, pairs.rating))
    shuffled = TrainingPairs(*arrays, pairs.n_users, pairs.n_items)
    first, second = (fit_neighborhood(each, TINY, search, 4) for each in (pairs, shuffled))
    assert first.item_vectors.any()
    assert (first.item_vectors == second.item_vectors).all()
    assert [log.loss for log in first.history] == [log.loss for log in second.history]
    other = fit_neighborhood(pairs, TINY, search, 5)
    assert (first.item_vectors != other.item_vectors).any(), "the seed matters"


@pytest.mark.parametrize(
    ("listed", "n_users", "n_items"),
    [([(0, 0), (0, 1), (0, 2)], 1, 3), ([(0, 0), (1, 0), (2, 0)], 3, 1), ([], 4, 2), ([(0, 0)], 1, 1)],
    ids=["one user", "one item", "no pairs", "one pair"],
)
def test_where_there_is_nothing_to_learn_similarities_stay(
    listed: list[tuple[int, int]], n_users: int, n_items: int
) -> None:
    pairs = to_pairs(listed, n_users, n_items)
    fit = fit_neighborhood(pairs, TINY, SEARCH, 0, validation=pairs)
    assert (fit.history, fit.best_epoch) == ((), 0)
    assert fit.item_vectors.shape == (n_items, 8)
    assert not fit.item_vectors.any()


def test_two_users_and_users_without_pairs() -> None:
    """Neighbors have nothing to say for the third user, who has nothing, and no user has the last item."""
    pairs = to_pairs([(user, item) for user in (0, 1) for item in range(5)], 3, 6)
    fit = fit_neighborhood(pairs, TINY, NeighborSettings(k=50), 0)
    assert np.isfinite(fit.item_vectors).all()
    assert fit.item_vectors[:5].any(axis=1).all()
    assert not fit.item_vectors[5].any()


def test_divergence_is_told() -> None:
    with pytest.raises(RecsysError, match=r"training diverged in epoch \d+: lower neighborhood\.learning_rate"):
        fit_neighborhood(_random_pairs(), TINY.model_copy(update={"learning_rate": 1e38}), SEARCH, 0)


def test_validation_of_other_users_is_refused() -> None:
    with pytest.raises(ValueError, match="validation has 3 users and 2 items, the training pairs have 25 and 18"):
        fit_neighborhood(_random_pairs(), TINY, SEARCH, 0, validation=to_pairs([(0, 0)], 3, 2))
