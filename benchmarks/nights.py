"""Public data sets as nights see them: training events, what is known of the items, and the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from benchmarks.datasets import (
    CACHE,
    FOLDER,
    TEST_SHARE,
    citeulike,
    citeulike_texts,
    gowalla,
    is_late,
    ml_1m_attributes,
    ml_100k_attributes,
    ncf_items,
    ncf_train,
    quest,
)
from benchmarks.splits import FULL as ALL_SPLITS
from benchmarks.splits import Split
from recsys_spark.models.interactions import TrainingPairs


@dataclass(frozen=True)
class Task:
    """Training events and what is known of items, by the ids of the data set, and how its lists are measured.

    `users`, `items`: the ids that positions in the pairs of `split` stand for, ascending.
    """

    train: pa.Table
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    about_items: pa.Table | None = None


@dataclass(frozen=True)
class Run:
    """A data set, its task, and the settings of its night; the first of the metrics decides which component is best."""

    split: Split
    task: Callable[[], Task]
    sections: dict[str, Any]

    @property
    def dataset(self) -> str:
        """Its name."""
        return self.split.name


def on_slice(case: Run, sections: Mapping[str, Mapping[str, Any]]) -> Run:
    """The same by the slice of the training pairs that settings are tuned on: it learns from the others.

    `sections` are settings in place of the case's own, one by one.
    """
    split = replace(case.split, test_task=case.split.tuning_task)
    merged = case.sections | {name: {**case.sections.get(name, {}), **values} for name, values in sections.items()}

    def task() -> Task:
        whole, learned = case.task(), case.split.tuning_task().train
        users, items = (
            np.searchsorted(ids, whole.train.column(name).to_numpy())
            for name, ids in (("user", whole.users), ("item", whole.items))
        )
        is_learned = np.isin(users << 32 | items, learned.user_idx.astype(np.int64) << 32 | learned.item_idx)
        return replace(whole, train=whole.train.filter(pa.array(is_learned)))

    return Run(split, task, merged)


def of_pairs(
    load: Callable[[], TrainingPairs], about_items: Callable[[], pa.Table | None] = lambda: None
) -> Callable[[], Task]:
    """Every pair counts as seen; ids are positions."""

    def task() -> Task:
        pairs = load()
        return Task(events_of(pairs), np.arange(pairs.n_users), np.arange(pairs.n_items), about_items())

    return task


def events_of(pairs: TrainingPairs) -> pa.Table:
    return pa.table({"user": pairs.user_idx, "item": pairs.item_idx})


def late_ratings(path: Path, delimiter: str, about_items: Callable[[], pa.Table]) -> Callable[[], Task]:
    """The first four fifths of each user's ratings with their times, and attributes of the movies."""

    def task() -> Task:
        ratings = pa_csv.read_csv(path, parse_options=pa_csv.ParseOptions(delimiter=delimiter))
        ratings = ratings.rename_columns(["user", "item", "rating", "timestamp"])
        columns = (ratings.column(name).to_numpy() for name in ("user", "item", "timestamp"))
        early = ratings.filter(~is_late(*columns, TEST_SHARE))
        ids = (np.unique(ratings.column(name).to_numpy()) for name in ("user", "item"))
        return Task(early, *ids, about_items())

    return task


def movies_of_latest() -> pa.Table:
    return pa_csv.read_csv(FOLDER / "ml-latest-small" / "movies.csv").rename_columns(["item", "title", "genres"])


def movies_of_100k() -> pa.Table:
    options = pa_csv.ParseOptions(delimiter="\t", quote_char=False)
    ids = pa_csv.read_csv(CACHE / "ml-100k.item", parse_options=options).column("item_id:token")
    about = pa.Table.from_pylist(ml_100k_attributes())
    return about.add_column(0, "item", pa.array(np.sort(ids.to_numpy())))


MOVIE_NAMES = ("title", "plot", "genres", "director", "actors", "year")


def movies_of_ncf() -> pa.Table:
    """What is known of the movies of MovieLens-1M, by their numbers in that split."""
    known = pa.Table.from_pylist(ml_1m_attributes(), pa.schema([(name, pa.string()) for name in MOVIE_NAMES]))
    return known.add_column(0, "item", pa.array(ncf_items()))


def articles_of_citeulike() -> pa.Table:
    """The words of the articles."""
    texts = citeulike_texts()
    return pa.Table.from_pylist(texts).add_column(0, "item", pa.array(np.arange(len(texts))))


IMPLICIT = {"feedback": {"kind": "implicit"}, "evaluate": {"split": "random"}}
NEAREST = {"k": 117, "weighting": "l2"}
# Where there is no other word, `model`, `ease` and `graph_filter` have what the search of `peer_quality` has found for
# each of them alone, on its slice of the training pairs; `unobserved_weight` is its share of the default weight there.
QUEST = IMPLICIT | {
    "neighbors": NEAREST,
    "model": {"embedding_dim": 214, "unobserved_weight": 0.1993, "l2": 0.0107},
    "ease": {"l2": 604.0},
    "graph_filter": {"dims": 72, "low_pass": 1.215},
    "hybrid": {"components": ["embedding", "neighbors", "ease", "graph_filter"]},
    "ranker": {"enabled": True},
}
LATE = {
    "evaluate": {"split": "newest"},
    "neighbors": NEAREST | {"k": 60},
    "content": {"text": ["title"], "categories": ["genres"]},
    "ranker": {"enabled": True},
    "hybrid": {
        "components": [
            "embedding",
            "popularity",
            "neighbors",
            "content",
            "ease",
            "session_embedding",
            "session_content",
            "session_ease",
        ]
    },
}
LATEST = LATE | {
    "model": {"embedding_dim": 211, "unobserved_weight": 0.3976, "l2": 0.00634},
    "ease": {"l2": 105.0},
}
OF_100K = LATE | {
    "model": {"embedding_dim": 423, "unobserved_weight": 0.4078, "l2": 0.00514},
    "ease": {"l2": 296.0},
}
CITEULIKE = IMPLICIT | {
    "neighbors": NEAREST | {"k": 200},
    "model": {"embedding_dim": 148, "unobserved_weight": 0.002893, "l2": 0.0236},
    "content": {"text": ["text"], "embedding_dim": 256},
    "hybrid": {"components": ["embedding", "popularity", "neighbors", "content", "graph_filter"]},
    "graph_filter": {"dims": 485, "low_pass": 1.951, "max_items": 30_000},
}
NCF = QUEST | {
    "model": {"embedding_dim": 192, "unobserved_weight": 0.3, "l2": 0.007},  # benchmarks.tune_ncf
    "ease": {"l2": 1247.0},  # of the search of EASE in NumPy
    "graph_filter": {"dims": 130, "low_pass": 1.69},
    "vae": {"kl_weight": 0.0025},  # of a few on another item of each user, by hand
    "ranker": {"enabled": False},
    "content": {"text": ["title", "plot"], "categories": ["genres", "director", "actors"], "numbers": ["year"]},
    # Ten places among a hundred are some hundreds among all: weights are learned for lists as long as that.
    "recommend": {"model": "hybrid", "top_k": 200},
    "hybrid": {"components": ["embedding", "neighbors", "ease", "graph_filter", "vae", "content"], "candidates": 300},
}
GOWALLA = IMPLICIT | {
    "neighbors": NEAREST | {"k": 200},
    # Dimensions and low_pass: the best of a few on a tenth of the training pairs, tried by hand.
    "model": {"embedding_dim": 512},
    "graph_filter": {"dims": 512, "low_pass": 0.05, "max_items": 50_000},
    "hybrid": {"components": ["embedding", "popularity", "neighbors", "graph_filter"]},
    "recommend": {"model": "hybrid", "top_k": 20},
}
SPLITS = {split.name: split for split in ALL_SPLITS}
LATEST_RATINGS, RATINGS_100K = FOLDER / "ml-latest-small" / "ratings.csv", CACHE / "ml-100k.inter"


def of_fold(fold: int) -> Run:
    return Run(SPLITS[f"quest_movielens_1m/{fold}"], of_pairs(partial(quest, fold)), QUEST)


SMALL = [
    Run(SPLITS["ml-100k/late"], late_ratings(RATINGS_100K, "\t", movies_of_100k), OF_100K),
    Run(SPLITS["ml-latest-small/late"], late_ratings(LATEST_RATINGS, ",", movies_of_latest), LATEST),
    of_fold(0),
]
FULL = [
    *SMALL,
    *(of_fold(fold) for fold in range(1, 5)),
    Run(SPLITS["ml-1m/ncf"], of_pairs(ncf_train, movies_of_ncf), NCF),
    Run(SPLITS["citeulike-t/P10"], of_pairs(partial(citeulike, "train", 10), articles_of_citeulike), CITEULIKE),
    Run(SPLITS["gowalla"], of_pairs(gowalla), GOWALLA),
]
