"""RecBole in a process of its own, from an environment of its own: it needs an older NumPy than the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from recsys_spark.models.interactions import TrainingPairs

PYTHON = Path(__file__).parents[2] / ".venv-recbole" / "bin" / "python"
WORKER = Path(__file__).with_name("recbole_worker.py")


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
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    command = [str(PYTHON), str(WORKER), f"--learning_rate={learning_rate}"]
    with tempfile.TemporaryDirectory() as folder:
        _write(pairs, Path(folder, "pairs"))
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder, env=environment) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield RecBole(Path(folder), process.stdin, process.stdout)  # the end of its input ends it


def _write(pairs: TrainingPairs, folder: Path) -> None:
    """The pairs in RecBole's own format."""
    folder.mkdir()
    table = pa.table({"user": pairs.user_idx, "item": pairs.item_idx})
    with (folder / f"{folder.name}.train.inter").open("wb") as file:
        file.write(b"user_id:token\titem_id:token\n")
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False, delimiter="\t"))
