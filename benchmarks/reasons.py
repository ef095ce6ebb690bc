"""What reasons cost beside the lists they explain, and whether they name the items that matter.

`cost`: a block of 1,024 users through scoring, and the same with reasons for each of the k items, in turns; once up to
the rows in memory and once written as Parquet. Processor time of one core, so that others on the machine count less.
`quality`: how often the item named first is the one without which the score would fall most: the vector of the user is
solved for anew without each of his items, which takes longer than all else and is what the terms stand for.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.datasets import CACHE, ml_100k_ratings
from benchmarks.harness import run_cases, save, take_turns
from benchmarks.jobs import World
from benchmarks.models import Model, embedded, named, voted, weighed
from recsys_spark.blockwise.blocks import TEST, TRAIN, VALIDATION, items_in_splits
from recsys_spark.blockwise.explanations import ListReasons, OneModel, named_models
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.parts import write_part
from recsys_spark.blockwise.plan import BlockMap, MovedBlocks
from recsys_spark.blockwise.reasons import KINDS
from recsys_spark.kernels.attribution import even_attribution, least_squares_attribution
from recsys_spark.kernels.csr import CsrRows, IndexLists
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side
from recsys_spark.kernels.reasons import MOST_CONSIDERED, largest_products
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.training import fit_embeddings

MOST = 2


@dataclass(frozen=True)
class Case:
    """Lists of k by a model; `quality` has no lists but asks for the items that matter."""

    model: str
    items: int
    k: int = 100
    seen: int = 50

    @property
    def name(self) -> str:
        """As in `embedding-50k-100`."""
        return f"{self.model}-{self.items // 1000}k-{self.k}"


SMALL = [
    Case("embedding", 50_000),
    Case("pooled", 50_000),
    Case("neighbors", 50_000),
    Case("ease", 10_000),
    Case("quality", 1_000),
]
FULL = [*SMALL, Case("embedding", 50_000, k=10), Case("embedding", 50_000, seen=200), Case("embedding", 200_000)]


def model_of(case: Case, block: pa.RecordBatch) -> Model:
    """The model of a case."""
    if case.model == "ease":
        return weighed(case.items, block)
    if case.model == "neighbors":
        return voted(case.items, block, case.seen)
    return embedded(case.items, block, is_pooled=case.model == "pooled")


def measure_cost(case: Case, rounds: int) -> None:
    (first,) = World(1024, case.items, seen=case.seen).blocks()
    block, scorer, source = model_of(case, first)
    explainer = OneModel(case.model, source, MOST)
    has_neighbors = case.model == "neighbors"
    reasons = ListReasons(explainer, named(KINDS), named(named_models(explainer)), has_neighbors)
    items = named(f"item-{item}" for item in range(case.items))
    plain, full = (recommend(MovedBlocks(()), scorer, items, case.k, reasons=each) for each in (None, reasons))
    excluded = items_in_splits(block, (TRAIN, VALIDATION, TEST))
    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    work = {
        "scores": lambda: scorer(block, excluded, case.k),
        "lists": lambda: plain.work(block),
        "lists_and_reasons": lambda: full.work(block),
        "written_lists": lambda: written(plain, block, folder),
        "written_lists_and_reasons": lambda: written(full, block, folder),
    }
    seconds = take_turns(work, rounds, time.thread_time)
    shutil.rmtree(folder)
    added = {
        "in_memory": np.array(seconds["lists_and_reasons"]) / np.array(seconds["lists"]) - 1,
        "written": np.array(seconds["written_lists_and_reasons"]) / np.array(seconds["written_lists"]) - 1,
    }
    medians = {name: round(float(np.median(each)) / 1024 * 1e6, 1) for name, each in seconds.items()}
    line = {"benchmark": "reasons", "case": case.name, "seen": case.seen, "named": MOST, "microseconds_a_user": medians,
            "added_percent": {name: round(100 * float(np.median(each)), 1) for name, each in added.items()},
            "rounds": rounds}  # fmt: skip
    print(json.dumps(save("reasons", line)), flush=True)


def written(lists: BlockMap, block: pa.RecordBatch, folder: Path) -> None:
    """As a task does."""
    list(write_part(iter([lists.work(block)]), folder, lists.names))


def measure_quality(users: int = 400, k: int = 20) -> None:
    """On MovieLens-100K, every rating as seen, `ials` with default settings, 10 epochs."""
    pairs = ml_100k_ratings()
    fit = fit_embeddings(replace(pairs, rating=np.ones(len(pairs), np.float32)), ModelSettings(), 0, epochs=10)
    loss, fixed = fit.whole_data_loss, fixed_side(fit.embeddings.item_vectors)
    assert loss is not None
    rows = CsrRows(pairs.indptr(), pairs.item_idx, np.ones(len(pairs), np.float32), pairs.n_items).slice_rows(0, users)
    vectors, items = fit.embeddings.scoring_vectors()
    best = score_top_k(vectors[:users], items, IndexLists(rows.indptr, rows.indices), k)
    turned = fit.embeddings.user_vectors[:users] @ fixed.axes
    shared = rows, turned, fixed.turned, fixed.diagonal
    attributions = {
        "all_items": (least_squares_attribution(*shared, loss, pairs.n_items), pairs.n_items),
        "most_of_a_list": (least_squares_attribution(*shared, loss, pairs.n_items), MOST_CONSIDERED),
        "as_if_free": (even_attribution(*shared, pairs.n_items), pairs.n_items),
    }
    terms = {
        name: largest_products(found.rows, found.scales, fixed.turned, fixed.turned, best.indices, 1, considered)
        for name, (found, considered) in attributions.items()
    }
    agreed: dict[str, list[Any]] = {name: [] for name in (*terms, "of_hu_et_al")}
    for user in range(users):
        own = rows.indices[rows.indptr[user] : rows.indptr[user + 1]]
        without, of_paper = leave_one_out(own, best.indices[user], fixed, loss, pairs.n_items)
        most = own[without.argmax(axis=0)]
        for name, each in terms.items():
            agreed[name].append(each.columns[user, :, 0] == most)
        agreed["of_hu_et_al"].append(own[of_paper.argmax(axis=0)] == most)
    left = {name: np.abs(best.scores - each.sums) / np.abs(best.scores) for name, each in terms.items()}
    line = {"benchmark": "reasons", "case": "quality", "dataset": "ml-100k", "users": users, "k": k,
            "same_item_first": {name: round(float(np.mean(each)), 3) for name, each in agreed.items()},
            "median_share_left": {name: round(float(np.median(each)), 4) for name, each in left.items()}}  # fmt: skip
    print(json.dumps(save("reasons", line)), flush=True)


def leave_one_out(own: Any, listed: Any, fixed: Any, loss: WholeDataLoss, n_items: int) -> tuple[Any, Any]:
    """What each own item's absence takes from each score, (own, listed), solved anew; and Hu et al.'s terms."""
    entries, items = fixed.turned[own].astype(float), fixed.turned[listed].astype(float)
    rest = np.diag(loss.unobserved_weight * fixed.diagonal + loss.l2 * (len(own) + loss.unobserved_weight * n_items))
    whole, target = rest + entries.T @ entries, entries.sum(axis=0)
    scores = items @ np.linalg.solve(whole, target)
    lost = [scores - items @ np.linalg.solve(whole - np.outer(each, each), target - each) for each in entries]
    return np.array(lost), entries @ np.linalg.solve(whole, items.T)


def run(case: Case, rounds: int) -> None:
    if case.model != "quality":
        measure_cost(case, rounds)
    elif (CACHE / "ml-100k.inter").exists():
        measure_quality()


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
