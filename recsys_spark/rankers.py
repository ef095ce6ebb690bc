"""Between the tables and the ranking stage: learns it on the driver, says whether it ranks better than the blend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_spark.audit import Facts
from recsys_spark.blockwise.blocks import array_of, read_blocks, rows_of
from recsys_spark.blockwise.files import save_arrays
from recsys_spark.blockwise.hybrid import SegmentWeights
from recsys_spark.blockwise.ranking import blended_sums
from recsys_spark.blockwise.user_rows import ROW_COLUMNS
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.network import ITEM_FACTS, Network, network_scores, ranking_features
from recsys_spark.kernels.stacking import CandidateLists, list_ndcgs
from recsys_spark.scoring import Fit, load_model
from recsys_spark.tables import ITEMS, USER_BLOCKS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

_FOLDS, _STOPPING = 4, 0.15  # parts of the users that are judged in turn, and the share of the others who stop


def learn_ranker(
    storage: RunStorage,
    settings: Settings,
    lists: CandidateLists,
    items: NDArray[np.int32],
    history: NDArray[np.int64],
    weigh: Callable[[NDArray[np.bool_]], SegmentWeights],
) -> Facts:
    """Learn from the users' candidates, `items` (rows,), and store the network; what the run keeps of it.

    `weigh` gives the weights of the blend as learned from some of the users, (u,). The network is used where the NDCG@k
    of the lists is higher by it than by the blend, cross-fitted: users are ranked by what was learned from others.
    """
    k, lessons = settings.recommend.top_k, _Lessons(storage, settings, lists, items, history)
    folds = np.random.default_rng([settings.seed, 7]).permutation(lists.n_lists) % _FOLDS
    everybody = np.ones(lists.n_lists, bool)
    if not all(lessons.can_teach(chosen) for chosen in (everybody, *(folds != fold for fold in range(_FOLDS)))):
        return {"is_used": False, "reason": "too few users have validation items among their candidates"}
    blended, ranked = np.zeros(lists.n_lists), np.zeros(lists.n_lists)
    for fold in range(_FOLDS):
        judged, rows = folds == fold, np.repeat(folds == fold, np.diff(lists.indptr))
        features, sums = lessons.blended(weigh(~judged))
        network, _ = lessons.teach(~judged, features, sums)
        blended[judged] = list_ndcgs(lists.some(judged), sums[rows], k)
        ranked[judged] = list_ndcgs(lists.some(judged), network_scores(features[rows], sums[rows], network), k)
    network, losses = lessons.teach(everybody, *lessons.blended(weigh(everybody)))
    folder = storage.scratch / "ranker-export"
    save_arrays(folder, network._asdict())
    storage.upload(folder, "ranker")
    gains = ranked - blended
    return {
        "is_used": ranks_better(gains),
        "losses": losses,
        "users": lists.n_lists,
        "ndcg": round(float(ranked.mean()), 6),
        "blend_ndcg": round(float(blended.mean()), 6),
        "gain": round(float(gains.mean()), 6),
        "gain_standard_error": round(float(gains.std() / np.sqrt(len(gains))), 6),
    }


class _Lessons:
    """What networks learn from: users' candidates, and what is known of the items."""

    def __init__(
        self,
        storage: RunStorage,
        settings: Settings,
        lists: CandidateLists,
        items: NDArray[np.int32],
        history: NDArray[np.int64],
    ) -> None:
        self._settings, self._lists, self._history = settings, lists, history
        self._spans, self._facts = IndexLists(lists.indptr, items), item_facts(storage, "selection")[items]
        self._is_trained = np.random.default_rng([settings.seed, 9]).random(lists.n_lists) >= _STOPPING
        relevant_before = np.concatenate([[0], np.cumsum(lists.is_relevant)])
        self._has_found = np.diff(relevant_before[lists.indptr]) > 0

    def can_teach(self, chosen: NDArray[np.bool_]) -> bool:
        """Whether there is something to find both for the users trained on and for those who stop the training."""
        found = self._has_found & chosen
        return bool((found & self._is_trained).any() and (found & ~self._is_trained).any())

    def blended(self, weights: SegmentWeights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features, (rows, f), and the blend's scores, (rows,), of all candidates."""
        sums = blended_sums(self._lists.scores, weights.of(self._history), self._spans)
        of_pairs = np.repeat(self._history, np.diff(self._lists.indptr))
        return ranking_features(self._lists.scores, sums, of_pairs, self._facts), sums

    def teach(
        self, chosen: NDArray[np.bool_], features: NDArray[np.float32], sums: NDArray[np.float32]
    ) -> tuple[Network, list[float]]:
        """The network learned from some users, (u,), and its loss after each epoch."""
        from recsys_spark.models.ranker import RankingLists, fit_ranker  # TensorFlow takes seconds to import

        some, rows = self._lists.some(chosen), np.repeat(chosen, np.diff(self._lists.indptr))
        prepared = RankingLists(some.indptr, features[rows], sums[rows], some.is_relevant)
        return fit_ranker(prepared, self._is_trained[chosen], self._settings.ranker, self._settings.seed)


def ranks_better(gains: NDArray[np.float64]) -> bool:
    """Whether the network is used, by what each user has gained by one that learned from others, (u,)."""
    return bool(gains.mean() > 0)


def item_facts(storage: RunStorage, fit: Fit) -> NDArray[np.float32]:
    """What the network takes of items, (n_items, 4), as of `kernels.network`; ages are 0 without times."""
    n_items, hold_out = storage.count(ITEMS), fit == "selection"
    first, last = np.full(n_items, -np.inf, np.float32), np.full(n_items, np.inf, np.float32)
    for block in read_blocks(storage.fetch(USER_BLOCKS, storage.scratch), (*ROW_COLUMNS, "ages")):
        ages, items = array_of(block, "ages", np.float32), rows_of(block, n_items).indices
        is_known = np.isfinite(ages)
        if hold_out:
            is_known &= array_of(block, "splits", np.uint8) == 0
        np.maximum.at(first, items[is_known], ages[is_known])
        np.minimum.at(last, items[is_known], ages[is_known])
    model = load_model(storage, fit)
    facts = np.zeros((n_items, ITEM_FACTS), np.float32)
    facts[:, 0] = model.popularity
    for column, ages in ((1, first), (2, last)):
        facts[:, column] = np.log1p(np.maximum(np.where(np.isfinite(ages), ages, 0.0), 0.0))
    facts[:, 3] = model.popularity == 0
    return facts
