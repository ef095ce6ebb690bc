"""How much a blend of models gains over the best of them: whole nights on the training part of public splits.

A night learns everything from the training pairs, the weights of the blend from validation items it sets aside of them;
its lists, and those of each component alone, are measured on the test pairs. `quest_movielens_1m`: NDCG at 10, the
folds of Anelli et al., "Top-N Recommendation Algorithms: A Quest for the State-of-the-Art", UMAP 2022.
`ml-latest-small`: the last fifth of each user's ratings by time. `citeulike-t/P10`: recall at 50, 100 and 300 (Wang et
al., "Collaborative Deep Learning", KDD 2015). `t` is that of the paired differences between users.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.datasets import FOLDER, citeulike, citeulike_texts, is_there
from benchmarks.harness import save
from jobs import nightly
from recsys_spark.blockwise.hybrid import SegmentWeights
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.lists import recommend
from recsys_spark.config import Settings
from recsys_spark.hybrids import hybrid_scorer, with_network
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.night import Night, open_night
from recsys_spark.tables import ITEMS

LATE_SHARE = 0.2
DRIVER_MEMORY = "3g"


@dataclass(frozen=True)
class Task:
    """Training events, test pairs (`user`, `item`), and what is known of items (`item`, attributes), by external id."""

    train: pa.Table
    test: pa.Table
    items: pa.Table | None = None


@dataclass(frozen=True)
class Run:
    """A data set, the settings of its night, and the metrics; the first of these decides which component is best."""

    dataset: str
    task: Callable[[], Task]
    sections: dict[str, Any]
    metrics: tuple[str, ...]


def quest(fold: int) -> Callable[[], Task]:
    """A fold: every rating counts as seen, nothing is known of the movies."""

    def load() -> Task:
        folder = FOLDER / "quest_movielens_1m"
        train, test = (pq.read_table(folder / f"fold{fold}.{part}.parquet") for part in ("train", "test"))
        return Task(train.select(["user", "item"]), test.select(["user", "item"]))

    return load


def late_ratings() -> Task:
    """MovieLens latest-small: the first four fifths of each user's ratings, with titles, genres and tags."""
    folder = FOLDER / "ml-latest-small"
    ratings = pa_csv.read_csv(folder / "ratings.csv").rename_columns(["user", "item", "rating", "timestamp"])
    ratings = ratings.sort_by([("user", "ascending"), ("timestamp", "ascending"), ("item", "ascending")])
    users = ratings.column("user").to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
    counts = np.diff(np.append(starts, len(users)))
    places = np.arange(len(users)) - np.repeat(starts, counts)
    is_late = places >= np.repeat(counts - np.ceil(LATE_SHARE * counts), counts)
    movies = pa_csv.read_csv(folder / "movies.csv").rename_columns(["item", "title", "genres"])
    return Task(ratings.filter(~is_late), ratings.filter(is_late).select(["user", "item"]), movies)


def articles() -> Task:
    """citeulike-t, ten articles of each user, and the words of all."""
    train, test = (citeulike(part, 10) for part in ("train", "test"))
    texts = pa.Table.from_pylist(citeulike_texts()).add_column(0, "item", pa.array(np.arange(train.n_items)))
    tables = [pa.table({"user": pairs.user_idx, "item": pairs.item_idx}) for pairs in (train, test)]
    return Task(*tables, items=texts)


IMPLICIT = {"feedback": {"kind": "implicit"}, "evaluate": {"split": "random"}}
NEAREST = {"k": 117, "weighting": "l2"}
QUEST = IMPLICIT | {
    "neighbors": NEAREST,
    "ease": {"l2": 240.0},
    "hybrid": {"components": ["embedding", "neighbors", "ease", "graph_filter"]},
    "ranker": {"enabled": True},
}
LATEST = {
    "evaluate": {"split": "newest"},
    "neighbors": NEAREST | {"k": 60},
    "ease": {"l2": 200.0},
    "graph_filter": {"dims": 64},
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
CITEULIKE = IMPLICIT | {
    "neighbors": NEAREST | {"k": 200},
    "model": {"embedding_dim": 128},
    "content": {"text": ["text"], "embedding_dim": 256},
    "hybrid": {"components": ["embedding", "popularity", "neighbors", "content", "graph_filter"]},
    "graph_filter": {"max_items": 30_000},
}
SMALL = [
    Run("quest_movielens_1m/0", quest(0), QUEST, ("ndcg@10",)),
    Run("ml-latest-small/late", late_ratings, LATEST, ("ndcg@10",)),
]
FULL = [
    *SMALL,
    *(Run(f"quest_movielens_1m/{fold}", quest(fold), QUEST, ("ndcg@10",)) for fold in range(1, 5)),
    Run("citeulike-t/P10", articles, CITEULIKE, ("recall@50", "recall@100", "recall@300")),
]


def settings_of(case: Run, task: Task, folder: Path) -> Settings:
    """Those of the case, on files of the task."""
    pq.write_table(task.train, folder / "events.parquet")
    columns = {name: name for name in ("user", "item", "rating", "timestamp") if name in task.train.column_names}
    sections: dict[str, Any] = {
        "storage": {"root": str(folder / "root")},
        "spark": {"driver_memory": DRIVER_MEMORY, "shuffle_partitions": 8},
        "events": {"path": str(folder / "events.parquet"), "columns": columns},
        "similar": {"users": False, "items": False},
        "recommend": {"model": "hybrid", "top_k": most_of(case)},
        "audit": {"min_user_coverage": 0.0},
        **case.sections,
    }
    if task.items is not None:
        pq.write_table(task.items, folder / "items.parquet")
        named = {name: name for name in task.items.column_names if name != "item"}
        sections["items"] = {"path": str(folder / "items.parquet"), "id": "item", "attributes": named}
    return Settings(**sections)


def most_of(case: Run) -> int:
    """The longest list that is measured."""
    return max(int(metric.partition("@")[2]) for metric in case.metrics)


def lists_of_components(night: Night) -> Iterator[tuple[str, pa.Table]]:
    """The lists of the blend, of the ranking stage and of each component alone, from fits of all training pairs.

    Those of the ranking stage whether or not the night has used it.
    """
    storage, settings = night.storage, night.settings
    folder, names = storage.fetch(ITEMS, storage.scratch), settings.components
    for number, name in enumerate(("hybrid", *names, *(["ranker"] if settings.ranker.enabled else []))):
        alone = SegmentWeights((), (tuple(float(each == name) for each in names),))
        blocks, scorer = hybrid_scorer(storage, settings, "model", alone if name in names else None)
        chosen = with_network(storage, settings, "model", scorer) if name == "ranker" else scorer
        item_ids = distribute_ids(storage.spark, folder, "item", storage.scratch / f"ids-{number}")
        yield name, recommend(blocks, chosen, item_ids, settings.recommend.top_k).frame().toArrow()


def measured(lists: pa.Table, test: pa.Table, metrics: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Each metric of each test user; all of them are in the training part."""
    users, wanted = (test.column(name).cast(pa.string()).combine_chunks() for name in ("user", "item"))
    given = lists.column("item_ids").combine_chunks()
    items = pc.unique(pa.chunked_array([wanted, given.flatten()]))
    rows = pc.index_in(users, lists.column("user_id").combine_chunks())
    assert rows.null_count == 0
    order = np.lexsort((pc.index_in(wanted, items).to_numpy(), rows.to_numpy()))
    found, counts = np.unique(rows.to_numpy(), return_counts=True)
    relevant = pc.index_in(wanted, items).to_numpy()[order].astype(np.int32)
    best = np.full((len(lists), int(pc.max(pc.list_value_length(given)).as_py())), -1)
    lengths = pc.list_value_length(given).to_numpy()
    best[np.arange(best.shape[1]) < lengths[:, None]] = pc.index_in(given.flatten(), items).to_numpy()
    hits = hits_matrix(best[found], IndexLists(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), relevant))
    values = ranking_metrics(hits, counts, sorted({int(metric.partition("@")[2]) for metric in metrics}))
    return {metric: np.asarray(values[metric]) for metric in metrics}


def t_of(gain: NDArray[np.float64]) -> float:
    """Of paired differences; 0 where there are none."""
    return round(float(gain.mean() / (gain.std() / np.sqrt(len(gain)))), 2) if gain.any() else 0.0


def run(case: Run) -> None:
    task = case.task()
    with tempfile.TemporaryDirectory(prefix="hybrid-quality-") as name:
        settings, started = settings_of(case, task, Path(name)), time.perf_counter()
        with open_night(settings, None, Console(file=sys.stderr)) as night:
            nightly.run(night)
            seconds = round(time.perf_counter() - started, 1)
            metrics = {name: measured(lists, task.test, case.metrics) for name, lists in lists_of_components(night)}
            facts = night.storage.step_details("blend")
    first = case.metrics[0]
    best = max(night.settings.components, key=lambda name: metrics[name][first].mean())
    for name, found in metrics.items():
        keep(case, name, {metric: round(float(values.mean()), 4) for metric, values in found.items()})
    gains = {metric: metrics["hybrid"][metric] - metrics[best][metric] for metric in case.metrics}
    line = {
        "best": best,
        "gains": {metric: round(float(gain.mean()), 4) for metric, gain in gains.items()},
        "t": {metric: t_of(gain) for metric, gain in gains.items()},
        "users": len(gains[first]),
        "night_s": seconds,
        "weights": facts["weights"],
        "validation": {name: facts[name] for name in ("ndcgs", "blend_ndcg", "gain", "gain_standard_error")},
    }
    if "ranker" in metrics:
        ranked = metrics["ranker"][first] - metrics["hybrid"][first]
        line["ranker"] = facts["ranker"] | {"test_gain": round(float(ranked.mean()), 4), "t": t_of(ranked)}
    keep(case, "hybrid beside the best", {}, **line)


def keep(case: Run, model: str, metrics: dict[str, float], **more: Any) -> None:
    line = {"benchmark": "quality", "dataset": case.dataset, "model": model, "metrics": metrics}
    print(json.dumps(save("quality", line | more | {"settings": case.sections})), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: all data sets")
    parser.add_argument("--dataset", default="", help="run those whose name contains this")
    options = parser.parse_args()
    for each in SMALL if options.size == "small" else FULL:
        if options.dataset in each.dataset and is_there(each.dataset.split("/")[0]):
            run(each)
