"""Epochs of `bpr` beside RecBole's: a part of `training_speed`, which says how."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import is_there, ml_1m
from benchmarks.harness import PROJECT, report
from benchmarks.jobs import CORES
from benchmarks.peers import recbole_process
from benchmarks.peers.recbole_process import Epoch, RecBole, recbole_bpr
from benchmarks.quality import without_a_tenth
from benchmarks.synthetic import Case, Seconds
from benchmarks.time_to_quality import seconds_to
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.batches import PairBatches, StepGroups
from recsys_spark.models.interactions import TrainedPart, select_trained
from recsys_spark.models.training import build_model
from recsys_spark.models.validation import BestItems, RankingValidation

LEARNING_EPOCHS = 20
BPR = ModelSettings(loss="bpr", batch_size=2048, negatives=1)
RECBOLE_LEARNING_RATE = 0.002
RECBOLE_THREADS = {"recbole_bpr": CORES, "recbole_bpr_one_thread": 1}


@dataclass(frozen=True)
class PairwiseCase:
    """Epochs of `bpr`, of RecBole's so many steps when given; a `pairs_of` of None is MovieLens-1M."""

    pairs_of: Case | None
    peer_steps: int | None = None

    @property
    def name(self) -> str:
        """As in `bpr-2048-1000k-100k`."""
        return self.pairs_of.name.replace("ials", "bpr-2048") if self.pairs_of else "bpr-2048-ml-1m"


class ProjectBpr:
    """Ours, with the methods of `RecBole`."""

    def __init__(self, part: TrainedPart) -> None:
        self._pairs, self._epoch = part.pairs, 0
        self._model, _ = build_model(part, BPR, 0, None)

    def train(self, steps: int | None = None) -> Epoch:
        """An epoch, whatever the steps."""
        batches, seconds = StepGroups(PairBatches(self._pairs, BPR.pairs_in_batch, 0, self._epoch)), Seconds()
        fit = self._model.fit(batches, verbose=0, shuffle=False, callbacks=[seconds])
        self._epoch += 1
        return Epoch(seconds.each[0], len(self._pairs), fit.history["loss"][0])

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of users and items, biases among them."""
        return self._model.ranking_vectors(np.arange(self._pairs.n_users))


def run_pairwise(case: PairwiseCase, rounds: int) -> None:
    """Seconds a million positives."""
    if case.pairs_of is None:
        if is_there("ml-1m"):
            run_learning(case, max(rounds, LEARNING_EPOCHS))
        return
    part = select_trained(case.pairs_of.pairs(), 1, 1)
    with bpr_contenders(part) as contenders:
        epochs: dict[str, list[Epoch]] = {name: [] for name in contenders}
        for _, (name, contender) in itertools.product(range(rounds + 1), contenders.items()):
            epochs[name].append(contender.train(case.peer_steps))
    report_epochs(case, epochs)


def run_learning(case: PairwiseCase, rounds: int) -> None:
    """The same, and how well they rank after each epoch."""
    train, held_out = without_a_tenth(ml_1m())
    part = select_trained(train, 1, 1)
    referee = RankingValidation(part, held_out, train.n_users, 0)
    with bpr_contenders(part) as contenders:
        epochs: dict[str, list[Epoch]] = {name: [] for name in contenders}
        ndcg: dict[str, list[float]] = {name: [] for name in contenders}
        for _, (name, contender) in itertools.product(range(rounds), contenders.items()):
            epochs[name].append(contender.train())
            ndcg[name].append(round(referee.ndcg(best_items(*contender.vectors())), 4))
    goal = min(max(values) for values in ndcg.values())
    reached = {
        name: seconds_to(goal, list(zip(np.cumsum([epoch.seconds for epoch in each]), ndcg[name], strict=True)))
        for name, each in epochs.items()
    }
    equal = {"ndcg@10": goal, "seconds": {name: round(float(seconds), 2) for name, seconds in reached.items()}}
    report_epochs(case, epochs, ndcg=ndcg, popularity_ndcg=round(referee.popularity_ndcg(), 4), equal_ndcg=equal)


def best_items(users: NDArray[np.float32], items: NDArray[np.float32]) -> BestItems:
    """By the product of vectors."""

    def best(user_idx: NDArray[np.intp], seen: IndexLists, k: int) -> NDArray[np.intp]:
        return score_top_k(users[user_idx], items, seen, k).indices

    return best


@contextmanager
def bpr_contenders(part: TrainedPart) -> Iterator[dict[str, ProjectBpr | RecBole]]:
    """Ours, and RecBole where it is."""
    contenders: dict[str, ProjectBpr | RecBole] = {PROJECT: ProjectBpr(part)}
    with ExitStack() as processes:
        for name, threads in RECBOLE_THREADS.items() if recbole_process.is_there() else ():
            peer = recbole_bpr(part.pairs, threads, RECBOLE_LEARNING_RATE)
            contenders[name] = processes.enter_context(peer)
        yield contenders


def report_epochs(case: PairwiseCase, epochs: dict[str, list[Epoch]], **more: Any) -> None:
    """Of each contender the first epoch is warm-up."""
    seconds = {name: [each.seconds / each.positives * 1e6 for each in own[1:]] for name, own in epochs.items()}
    losses = {name: [round(own[place].loss, 4) for place in (0, -1)] for name, own in epochs.items()}
    speed = {name: round(1e6 / float(np.median(values))) for name, values in seconds.items()}
    unit = "seconds a million positives"
    report("training_speed", case.name, seconds, unit=unit, positives_a_second=speed, losses=losses, **more)
