"""What rules cost beside the lists they are about: a block of 1,024 users through scoring, without and with them.

`boosts`: a fifth of the items have a factor. `denied`: each user is not shown 20 items more, besides the 50 that are
seen. `lengths`: each user has a list length of his own. `all`: all of that, and one user in twenty gets 100 given items
only. The same candidates throughout: what nobody may be shown makes scoring faster. Processor time of one core.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import run_cases, save, take_turns
from benchmarks.jobs import World
from benchmarks.models import Model, embedded, held, named, voted, weighed
from recsys_spark.blockwise.blocks import array_of, binary_cell
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.plan import Block, MovedBlocks, Work
from recsys_spark.blockwise.rules import ListRules
from recsys_spark.blockwise.scorers import EmbeddingScorer, Scorer
from recsys_spark.kernels.exclusions import hide_items

USERS, SEEN, DENIED, CANDIDATES = 1024, 50, 20, 100


@dataclass(frozen=True)
class Case:
    """Lists of k by a model over so many items."""

    model: str
    items: int
    k: int = 100

    @property
    def name(self) -> str:
        """As in `embedding-50k-100`."""
        return f"{self.model}-{self.items // 1000}k-{self.k}"


SMALL = [Case("embedding", 50_000), Case("neighbors", 50_000), Case("ease", 10_000)]
FULL = [*SMALL, Case("embedding", 50_000, k=10), Case("embedding", 200_000)]


def model_of(case: Case, block: Block) -> Model:
    if case.model == "ease":
        return weighed(case.items, block)
    return voted(case.items, block, SEEN) if case.model == "neighbors" else embedded(case.items, block)


def boosted(scorer: Any, items: int) -> Scorer:
    """The scorer with factors of a fifth of the items."""
    random = np.random.default_rng(3)
    factors = np.where(random.random(items) < 0.2, random.uniform(0.5, 2.0, items), 1.0).astype(np.float32)
    if isinstance(scorer, EmbeddingScorer):
        return replace(scorer, items=replace(scorer.items, factors=held(factors)))
    return replace(scorer, factors=held(factors))


def ruled(block: Block, items: int, k: int, parts: frozenset[str]) -> pa.RecordBatch:
    """The block with what the step `rules` says of its users."""
    random, users = np.random.default_rng(4), np.arange(USERS)
    seen = np.repeat(users, np.diff(array_of(block, "indptr", np.int64))), array_of(block, "indices", np.int32)
    few = users if "denied" in parts else users[:0]
    denied = np.repeat(few, DENIED), random.integers(0, items, len(few) * DENIED)
    has_candidates = users % 20 == 0 if "candidates" in parts else np.zeros(USERS, bool)
    own = np.flatnonzero(has_candidates)
    candidates = np.repeat(own, CANDIDATES), random.integers(0, items, len(own) * CANDIDATES)
    hidden = hide_items(np.ones(USERS, bool), has_candidates, seen, denied, candidates)
    lengths = random.integers(k // 2, k + 1, USERS) if "lengths" in parts else np.full(USERS, k)
    cells = {
        "list_lengths": lengths.astype(np.int32),
        "has_candidates": has_candidates.astype(np.uint8),
        "hidden_indptr": hidden.lists.indptr,
        "hidden_indices": hidden.lists.indices,
        "are_allowed": hidden.lists.are_allowed.astype(np.uint8),
        "seen_counts": hidden.seen_counts,
        "denied_counts": hidden.denied_counts,
    }
    for name, array in cells.items():
        block = block.append_column(name, binary_cell(array))
    return block


def run(case: Case, rounds: int) -> None:
    (first,) = World(USERS, case.items, seen=SEEN).blocks()
    block, scorer, _ = model_of(case, first)
    ids = named(f"item-{item}" for item in range(case.items))
    rules, every = ListRules(case.items, {}), frozenset({"denied", "lengths", "candidates"})

    def lists(scorer: Scorer, rules: ListRules | None) -> Work:
        return recommend(MovedBlocks(()), scorer, ids, case.k, rules=rules).work

    by_factors = boosted(scorer, case.items)
    blocks = {part: ruled(block, case.items, case.k, frozenset({part})) for part in ("denied", "lengths")}
    all_of_it = ruled(block, case.items, case.k, every)
    work = {
        "plain": lambda: lists(scorer, None)(block),
        "boosts": lambda: lists(by_factors, None)(block),
        "denied": lambda: lists(scorer, rules)(blocks["denied"]),
        "lengths": lambda: lists(scorer, rules)(blocks["lengths"]),
        "all": lambda: lists(by_factors, rules)(all_of_it),
    }
    seconds = take_turns(work, rounds, time.thread_time)
    plain = np.array(seconds["plain"])
    added = {name: np.median(np.array(each) / plain - 1) for name, each in seconds.items() if name != "plain"}
    line = {"benchmark": "rules", "case": case.name, "users": USERS, "rounds": rounds,
            "plain_microseconds_a_user": round(float(np.median(plain)) / USERS * 1e6, 1),
            "added_percent": {name: round(100 * float(each), 1) for name, each in added.items()}}  # fmt: skip
    print(json.dumps(save("rules", line)), flush=True)


if __name__ == "__main__":
    run_cases(__doc__, SMALL, FULL, run)
