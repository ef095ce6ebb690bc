"""Between the tables and the ranking stage: learns it on the driver, says whether it ranks better than the blend."""

from __future__ import annotations

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
from recsys_spark.kernels.network import ITEM_FACTS, network_scores, ranking_features
from recsys_spark.kernels.stacking import CandidateLists, list_ndcgs
from recsys_spark.scoring import Fit, load_model
from recsys_spark.tables import ITEMS, USER_BLOCKS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

_TRAINED, _STOPPING = 0.7, 0.15  # shares of the users; the others decide


def learn_ranker(
    storage: RunStorage,
    settings: Settings,
    lists: CandidateLists,
    items: NDArray[np.int32],
    history: NDArray[np.int64],
    weights: SegmentWeights,
) -> Facts:
    """Learn from most of the users' candidates, `items` (rows,), stop by some and decide by the others.

    The network is used where the others' NDCG@k of the lists is higher by it than by the blend.
    """
    from recsys_spark.models.ranker import RankingLists, fit_ranker  # TensorFlow takes seconds to import

    spans = IndexLists(lists.indptr, items)
    sums = blended_sums(lists.scores, weights.of(history), spans)
    of_pairs = np.repeat(history, np.diff(lists.indptr))
    features = ranking_features(lists.scores, sums, of_pairs, item_facts(storage, "selection")[items])
    points = np.random.default_rng([settings.seed, 7]).random(lists.n_lists)
    is_trained, decides = points < _TRAINED, points >= _TRAINED + _STOPPING
    has_found = np.diff(np.concatenate([[0], np.cumsum(lists.is_relevant)])[lists.indptr]) > 0
    if not all((has_found & part).any() for part in (is_trained, ~is_trained & ~decides, decides)):
        return {"is_used": False, "reason": "too few users have validation items among their candidates"}
    learning = lists.some(~decides)
    rows = np.repeat(~decides, np.diff(lists.indptr))
    prepared = RankingLists(learning.indptr, features[rows], sums[rows], learning.is_relevant)
    network, losses = fit_ranker(prepared, is_trained[~decides], settings.ranker, settings.seed)
    judged = lists.some(decides)
    k = settings.recommend.top_k
    ranked = list_ndcgs(judged, network_scores(features[~rows], sums[~rows], network), k)
    blended = list_ndcgs(judged, sums[~rows], k)
    gains = ranked - blended
    folder = storage.scratch / "ranker-export"
    save_arrays(folder, network._asdict())
    storage.upload(folder, "ranker")
    return {
        "is_used": ranks_better(gains),
        "losses": losses,
        "users": judged.n_lists,
        "ndcg": round(float(ranked.mean()), 6),
        "blend_ndcg": round(float(blended.mean()), 6),
        "gain": round(float(gains.mean()), 6),
        "gain_standard_error": round(float(gains.std() / np.sqrt(len(gains))), 6),
    }


def ranks_better(gains: NDArray[np.float64]) -> bool:
    """Whether the network is used, by what each of the users who decide has gained by it, (u,)."""
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
