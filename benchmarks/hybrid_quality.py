"""How much a blend of models gains over the best of them: whole nights on the training part of public splits.

A night learns everything from the training pairs, the weights of the blend from validation items it sets aside of them;
its lists, and those of each component alone, are measured on the test pairs. `quest_movielens_1m`: NDCG at 10, the
folds of Anelli et al., "Top-N Recommendation Algorithms: A Quest for the State-of-the-Art", UMAP 2022.
`ml-latest-small/late`, `ml-100k/late`: the last fifth of each user's ratings by time. `citeulike-t/P10`: recall at 50,
100 and 300 (Wang et al., "Collaborative Deep Learning", KDD 2015). `ml-1m/ncf`: hit rate and NDCG at 10 of one held-out
item among 99 that the user has not seen (He et al., "Neural Collaborative Filtering", WWW 2017). `gowalla`: recall and
NDCG at 20 (He et al., "LightGCN", SIGIR 2020); 16 GB of memory. `t` is that of the paired differences between users;
beside peers that `peer_quality` has measured on this machine, by the bootstrap, too. With `--slice` the test pairs are
not looked at: it is for choosing settings of a night.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.datasets import is_there
from benchmarks.harness import chosen, save
from benchmarks.nights import FULL, SMALL, Run, Task, on_slice
from benchmarks.ranking import Values, lists_of, longest, means_of
from benchmarks.user_values import ahead_of, beside_peers, keep_values, kept_values, t_of
from jobs import nightly
from recsys_spark.blockwise.hybrid import SegmentWeights
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.lists import recommend
from recsys_spark.config import Settings
from recsys_spark.hybrids import hybrid_scorer, with_network
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.night import Night, open_night
from recsys_spark.tables import ITEMS

DRIVER_MEMORY = "3g"


def settings_of(case: Run, task: Task, folder: Path) -> Settings:
    """Those of the case, on files of the task."""
    pq.write_table(task.train, folder / "events.parquet")
    columns = {name: name for name in ("user", "item", "rating", "timestamp") if name in task.train.column_names}
    sections: dict[str, Any] = {
        "storage": {"root": str(folder / "root")},
        "spark": {"driver_memory": DRIVER_MEMORY, "shuffle_partitions": 8},
        "events": {"path": str(folder / "events.parquet"), "columns": columns},
        "similar": {"users": False, "items": False},
        "recommend": {"model": "hybrid"},
        "audit": {"min_user_coverage": 0.0},
        **case.sections,
    }
    if task.about_items is not None:
        pq.write_table(task.about_items, folder / "items.parquet")
        named = {name: name for name in task.about_items.column_names if name != "item"}
        sections["items"] = {"path": str(folder / "items.parquet"), "id": "item", "attributes": named}
    return Settings(**sections)


def lists_of_components(night: Night, k: int) -> Iterator[tuple[str, pa.Table]]:
    """The lists of the blend, of the ranking stage and of each component alone, from fits of all training pairs.

    Those of the ranking stage whether or not the night has used it.
    """
    storage, settings = night.storage, night.settings
    folder, names = storage.fetch(ITEMS, storage.scratch), settings.components
    blocks, scorer = hybrid_scorer(storage, settings, "model")
    for number, name in enumerate(("hybrid", *names, *(["ranker"] if settings.ranker.enabled else []))):
        alone = SegmentWeights((), (tuple(float(each == name) for each in names),))
        chosen = replace(scorer, weights=alone) if name in names else scorer
        chosen = with_network(storage, settings, "model", scorer) if name == "ranker" else chosen
        item_ids = distribute_ids(storage.spark, folder, "item", storage.scratch / f"ids-{number}")
        yield name, recommend(blocks, chosen, item_ids, k).frame().toArrow()


def measured(lists: pa.Table, case: Run, task: Task) -> Values:
    """Each metric of each user: by his list, in which items come by falling scores."""
    users, given = lists.column("user_id").cast(pa.int64()).to_numpy(), lists.column("item_ids").combine_chunks()
    lengths, items = pc.list_value_length(given).to_numpy(), given.flatten().cast(pa.int64()).to_numpy()
    rows = np.repeat(np.searchsorted(task.users, users), lengths)
    ranks = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places, order = np.searchsorted(task.items, items), np.argsort(rows, kind="stable")
    listed = IndexLists(np.searchsorted(rows[order], np.arange(len(task.users) + 1)), places[order])

    def scores(some: slice) -> NDArray[np.float32]:
        found = np.full((some.stop - some.start, len(task.items)), -np.inf, np.float32)
        own, here = listed.slice_rows(some.start, some.stop), slice(listed.indptr[some.start], listed.indptr[some.stop])
        found[np.repeat(np.arange(own.n_rows), np.diff(own.indptr)), own.indices] = -ranks[order][here]
        return found

    split = case.split.test_task()
    return split.measure(lists_of(scores, len(task.users)), split.train)


def print_kept(case: Run) -> None:
    """How far the lists that the last night has left are ahead of those of peers, without a night."""
    values = kept_values(case.dataset, "hybrid")
    if values is not None:
        print(json.dumps({"dataset": case.dataset, "beside_peers": beside_peers(case.dataset, values)}))


def run(case: Run, is_kept: bool) -> None:
    task = case.task()
    with tempfile.TemporaryDirectory(prefix="hybrid-quality-") as name:
        settings, started = settings_of(case, task, Path(name)), time.perf_counter()
        with open_night(settings, None, Console(file=sys.stderr)) as night:
            nightly.run(night)
            seconds = round(time.perf_counter() - started, 1)
            k = len(task.items) if case.dataset == "ml-1m/ncf" else longest(case.split.metrics)
            found = {name: measured(lists, case, task) for name, lists in lists_of_components(night, k)}
            facts = night.storage.step_details("blend")
    for name, values in found.items():
        tell(case, is_kept, name, means_of(values))
        if is_kept:
            keep_values(case.dataset, name, values)
    metrics = {
        name: {metric: each[~np.isnan(each)] for metric, each in values.items()} for name, values in found.items()
    }
    first = case.split.metrics[0]
    best = max(night.settings.components, key=lambda name: metrics[name][first].mean())
    gains = {metric: metrics["hybrid"][metric] - metrics[best][metric] for metric in case.split.metrics}
    line = {
        "best": best,
        "gains": {metric: round(float(gain.mean()), 4) for metric, gain in gains.items()},
        "t": {metric: t_of(gain) for metric, gain in gains.items()},
        "users": len(gains[first]),
        "night_s": seconds,
        "weights": facts["weights"],
        "validation": {name: facts[name] for name in ("ndcgs", "blend_ndcg", "gain", "gain_standard_error")},
        "ahead_of": {
            name: ahead_of(found["hybrid"][first], each[first]) for name, each in found.items() if name != "hybrid"
        },
    }
    if "ranker" in metrics:
        ranked = metrics["ranker"][first] - metrics["hybrid"][first]
        line["ranker"] = facts["ranker"] | {"test_gain": round(float(ranked.mean()), 4), "t": t_of(ranked)}
    tell(case, is_kept, "hybrid beside the best", {}, **line)
    if is_kept:
        print_kept(case)


def tell(case: Run, is_kept: bool, model: str, metrics: dict[str, float], **more: Any) -> None:
    line = {"benchmark": "quality", "dataset": case.dataset, "model": model, "metrics": metrics}
    line |= more | {"settings": case.sections}
    print(json.dumps(save("quality", line) if is_kept else line), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: all data sets")
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    parser.add_argument("--kept", action="store_true", help="no nights: the last ones' lists beside the peers measured")
    parser.add_argument(
        "--slice",
        type=json.loads,
        metavar="SECTIONS",
        help="nights on the slice of the training pairs that settings are tuned on; as JSON the settings to "
        "change by section, {} for none; nothing is kept",
    )
    options = parser.parse_args()
    of_size = {each.dataset: each for each in (SMALL if options.size == "small" else FULL)}
    for each in chosen(parser, "--dataset", options.dataset, of_size):
        if not is_there(each.split.folder):
            continue
        if options.kept:
            print_kept(each)
        elif options.slice is not None:
            run(on_slice(each, options.slice), is_kept=False)
        else:
            run(each, is_kept=True)
