"""RecBole in a process of its own, from an environment of its own: it needs an older NumPy than the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from benchmarks.quality import some_pairs
from recsys_spark.models.interactions import TrainingPairs

PYTHON = Path(__file__).parents[2] / ".venv-recbole" / "bin" / "python"
WORKER = Path(__file__).with_name("recbole_worker.py")
FITTER = Path(__file__).with_name("recbole_fit.py")


@dataclass(frozen=True)
class Epoch:
    """An epoch, or so many steps of it: wall seconds, positives, and the mean loss of its batches."""

    seconds: float
    positives: int
    loss: float


@dataclass(frozen=True)
class RecBole:
    """BPR in training."""

    folder: Path
    requests: IO[str]
    answers: IO[str]

    def train(self, steps: int | None = None) -> Epoch:
        """An epoch, or the first steps of one.

        Raises:
            RuntimeError: the process has ended.
        """
        self.requests.write(f"{steps or 0}\n")
        self.requests.flush()
        answer = self.answers.readline()
        if not answer:
            raise RuntimeError("RecBole ended before its answer; its messages are above")
        return Epoch(**json.loads(answer))

    def vectors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of users (n_users, 64) and items (n_items, 64), after the last whole epoch."""
        return np.load(self.folder / "users.npy"), np.load(self.folder / "items.npy")


def is_there() -> bool:
    """Whether there is an environment with RecBole; says how to make one when there is not."""
    if (PYTHON.parents[1] / ".made").exists():
        return True
    print("without RecBole: `make bench-recbole` makes the environment it needs", file=sys.stderr)
    return False


@contextmanager
def recbole_bpr(pairs: TrainingPairs, threads: int, learning_rate: float) -> Iterator[RecBole]:
    """RecBole's BPR at its start; all users and items must have pairs."""
    environment = environment_of(threads)
    command = [str(PYTHON), str(WORKER), f"--learning_rate={learning_rate}"]
    with tempfile.TemporaryDirectory() as folder:
        _write(pairs, Path(folder, "pairs"), "train")
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield RecBole(Path(folder), process.stdin, process.stdout)  # the end of its input ends it


@dataclass(frozen=True)
class Job:
    """A model by its name in RecBole, settings, and when to stop: after so many epochs, or before by held-out pairs.

    These are looked at every so many epochs, and `patience` looks without a better NDCG@10 end the training.
    """

    model: str
    settings: Mapping[str, Any]
    epochs: int
    patience: int = 3
    epochs_a_look: int = 1


@dataclass(frozen=True)
class Trained:
    """Scores of all items, (n_users, n_items), seconds without loading and looking, and the epochs behind the scores.

    Items without pairs have -inf, users without pairs zeros.
    """

    scores: NDArray[np.float32]
    seconds: float
    epochs: int


def train_by_recbole(job: Job, pairs: TrainingPairs, held_out: TrainingPairs | None, threads: int) -> Trained:
    """Train a model in a process of its own; held-out pairs of users or items without pairs are not looked at.

    Raises:
        RuntimeError: the process has failed.
    """
    request = {**asdict(job), "n_users": pairs.n_users, "n_items": pairs.n_items, "has_held_out": held_out is not None}
    with tempfile.TemporaryDirectory() as folder:
        _write(pairs, Path(folder, "pairs"), "train")
        if held_out is not None:
            _write(_known(held_out, pairs), Path(folder, "pairs"), "valid")
        process = subprocess.run(
            [str(PYTHON), str(FITTER)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment_of(threads),
        )
        if process.returncode:
            raise RuntimeError(f"RecBole's {job.model} failed: {process.stderr.strip().splitlines()[-1:]}")
        answer = json.loads(process.stdout.splitlines()[-1])
        return Trained(np.load(Path(folder, "scores.npy")), **answer)


def _known(held_out: TrainingPairs, pairs: TrainingPairs) -> TrainingPairs:
    """Without pairs whose user or item is not trained: RecBole would rank by vectors as they were drawn."""
    is_known = (pairs.user_counts() > 0)[held_out.user_idx] & (pairs.item_counts() > 0)[held_out.item_idx]
    return some_pairs(held_out, is_known)


def environment_of(threads: int) -> dict[str, str]:
    limits = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"], str(threads))
    return os.environ | limits | {"PYTHONWARNINGS": "ignore"}


def _write(pairs: TrainingPairs, folder: Path, part: str) -> None:
    """The pairs in RecBole's own format."""
    folder.mkdir(exist_ok=True)
    table = pa.table({"user": pairs.user_idx, "item": pairs.item_idx})
    with (folder / f"{folder.name}.{part}.inter").open("wb") as file:
        file.write(b"user_id:token\titem_id:token\n")
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, delimiter="\t"))
