"""Public data sets split for training and for measuring, with one slice of the training pairs to tune every model on.

`quest_movielens_1m/0` to `/4`: the folds of Anelli et al., "Top-N Recommendation Algorithms: A Quest for the
State-of-the-Art", UMAP 2022. `ml-1m/ncf`: one held-out item of each user among 99 unseen ones, He et al., "Neural
Collaborative Filtering", WWW 2017. `gowalla`: He et al., "LightGCN", SIGIR 2020. `citeulike-t/P1` and `/P10`: one or
ten articles of a user known, Wang et al., "Collaborative Deep Learning", KDD 2015. `ml-latest-small/late` and
`ml-100k/late`: the last fifth of each user's ratings by time. All but `ml-1m/ncf` rank all items but those that a user
has in training.

Settings are tuned on a tenth of the training pairs: drawn at random, or of `late` splits each user's newest. The folds
of `quest_movielens_1m` are five random shares, not parts: four fifths of the test pairs of a fold are training pairs of
the first, on which settings are tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import citeulike, gowalla, ml_100k_late, ml_latest_late, ncf_candidates, ncf_train, quest
from benchmarks.quality import without_a_tenth
from benchmarks.ranking import Measure, among_given, over_all
from benchmarks.tune_ncf import without_one
from recsys_spark.models.interactions import TrainingPairs


@dataclass(frozen=True)
class Task:
    """Pairs to learn from, how lists are measured, and the pairs that training may be stopped by."""

    train: TrainingPairs
    measure: Measure
    held_out: TrainingPairs | None = None


@dataclass(frozen=True)
class Split:
    """A data set: the pairs to learn from, what is measured on test pairs, and what settings are tuned on.

    The first of the metrics decides between settings. `tuned_on` names another split whose settings count here, too:
    those of five folds are tuned on the training pairs of the first. `trials`: how many settings are tried of each
    model. `path`: where in the folder of data sets it is, when the first part of its name does not say it.
    """

    name: str
    metrics: tuple[str, ...]
    test_task: Callable[[], Task]
    tuning_task: Callable[[], Task]
    tuned_on: str | None = None
    trials: int = 30
    path: str | None = None

    @property
    def folder(self) -> str:
        """Of the data."""
        return self.path or self.name.partition("/")[0]

    @property
    def settings_from(self) -> str:
        """The split whose training pairs settings are tuned on."""
        return self.tuned_on or self.name


Parts = Callable[[str], TrainingPairs]
"""`train` and `test`; of splits by time `early` and `newest`, too, which are parts of `train`."""


def a_tenth(pairs: Parts) -> tuple[TrainingPairs, TrainingPairs]:
    """The training pairs without a tenth, and the tenth."""
    return without_a_tenth(pairs("train"))


def the_newest(pairs: Parts) -> tuple[TrainingPairs, TrainingPairs]:
    """The training pairs without the last tenth of each user's, and these: later, as test pairs are."""
    return pairs("early"), pairs("newest")


def ranked_over_all(
    name: str,
    metrics: tuple[str, ...],
    pairs: Parts,
    held_out: Callable[[Parts], tuple[TrainingPairs, TrainingPairs]] = a_tenth,
    **more: Any,
) -> Split:
    """A split whose lists are of all items; settings are tuned on a part of its training pairs that is held out."""

    def test_task() -> Task:
        return Task(pairs("train"), over_all(partial(pairs, "test"), metrics))

    def tuning_task() -> Task:
        train, wanted = held_out(pairs)
        return Task(train, over_all(lambda: wanted, metrics), wanted)

    return Split(name, metrics, test_task, tuning_task, **more)


def ranked_among_given(name: str, metrics: tuple[str, ...]) -> Split:
    """MovieLens-1M, leave one out; settings are tuned on another item of each user, drawn from the training pairs."""

    def test_task() -> Task:
        return Task(ncf_train(), among_given(ncf_candidates, metrics))

    def tuning_task() -> Task:
        train, given = without_one(ncf_train())
        return Task(train, among_given(lambda: given, metrics), first_given(train, given))

    return Split(name, metrics, test_task, tuning_task, trials=20, path=name)


def first_given(train: TrainingPairs, given: NDArray[np.int64]) -> TrainingPairs:
    """The first of the items given to each user, as pairs."""
    users, ones = np.arange(train.n_users, dtype=np.int32), np.ones(train.n_users, np.float32)
    return TrainingPairs(users, given[:, 0].astype(np.int32), ones, train.n_users, train.n_items)


AT_10 = ("ndcg@10", "recall@10")
OF_ARTICLES = ("recall@50", "recall@100", "recall@300")
FIRST_FOLD = "quest_movielens_1m/0"
SMALL = [
    ranked_over_all("ml-100k/late", AT_10, ml_100k_late, the_newest),
    ranked_over_all("ml-latest-small/late", AT_10, ml_latest_late, the_newest),
    ranked_over_all(FIRST_FOLD, AT_10, partial(quest, 0)),
]
FULL = [
    *SMALL,
    *(
        ranked_over_all(f"quest_movielens_1m/{fold}", AT_10, partial(quest, fold), tuned_on=FIRST_FOLD)
        for fold in range(1, 5)
    ),
    ranked_among_given("ml-1m/ncf", ("hit_rate@10", "ndcg@10")),
    ranked_over_all("citeulike-t/P1", OF_ARTICLES, partial(citeulike, least=1)),
    ranked_over_all("citeulike-t/P10", OF_ARTICLES, partial(citeulike, least=10)),
    ranked_over_all("gowalla", ("recall@20", "ndcg@20"), gowalla, trials=12),
]
