"""Training that goes on where a killed one stopped: what it holds after an epoch, as plain arrays and JSON."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras
from recsys_spark.models.embedding import as_array

STATE, ARRAYS = "state.json", "arrays.npz"
SHARE_OF_TIME = 0.05  # that saving may take; passes of a second are not all saved


class Checkpoints(Protocol):
    """Keeps the newest checkpoint of one fit, where a later process finds it."""

    def newest(self) -> Path | None:
        """A folder as it was kept, to be read only; None without a complete one."""
        ...

    def keep(self, folder: Path) -> None:
        """Copy a folder; the one before must stay until the copy is complete."""
        ...

    def discard(self) -> None:
        """Remove what was kept."""
        ...


@dataclass(frozen=True)
class EpochLog:
    """One pass over the pairs: mean `loss` a pair, NDCG when validated, wall `seconds` with the validation.

    `validation_rmse`: of `mse`, the root of the mean squared error of ratings of 0-1.
    """

    epoch: int
    loss: float
    validation_ndcg: float | None
    seconds: float
    validation_rmse: float | None = None


class Checkpointer(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves the training at ends of epochs, and takes it up again; it stands behind the callbacks whose state it keeps.

    `purpose` says what is trained, on what, how: a checkpoint of another purpose is not taken up. Taken up, training
    gives the bits that it would have given without a break: batches and negatives depend on seed and epoch alone.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        purpose: Any,
        history: list[EpochLog],
        stopping: keras.callbacks.EarlyStopping | None,
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._purpose = hashlib.sha256(json.dumps(purpose, sort_keys=True).encode()).hexdigest()
        self._history, self._stopping = history, stopping
        self._state: dict[str, Any] | None = None
        self._arrays: dict[str, NDArray[Any]] = {}
        self._saved_at, self._saving_s = -np.inf, 0.0

    def take_up(self) -> int:
        """Read the newest checkpoint, once, before training; the epochs it has behind it, 0 without one."""
        folder = self._checkpoints.newest()
        if folder is None:
            return 0
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
                self._arrays = dict(arrays)
        except (
            OSError,
            ValueError,
            EOFError,
            zipfile.BadZipFile,
        ):  # after a crash of the machine: nothing is lost but time
            state = {"purpose": None}
        if state["purpose"] != self._purpose:
            self._arrays = {}
            self._checkpoints.discard()
            return 0
        self._state = state
        return int(state["most_epochs"]) if state["is_over"] else len(state["history"])

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put back what was read; early stopping has begun anew by now."""
        if self._state is None:
            return
        self._history.extend(EpochLog(**log) for log in self._state["history"])
        for variable, array in zip(_variables(self.model), _listed(self._arrays, "variable"), strict=True):
            variable.assign(array)
        if self._stopping is not None:
            for name, value in self._state["stopping"].items():
                setattr(self._stopping, name, value)
            self._stopping.best_weights = _listed(self._arrays, "best")
        self._state, self._arrays = None, {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save, unless that took more than its share of the time."""
        is_over = bool(self.model.stop_training) or epoch + 1 == self.params["epochs"]
        started = time.perf_counter()
        if not is_over and started - self._saved_at < self._saving_s / SHARE_OF_TIME:
            return
        with tempfile.TemporaryDirectory(prefix="recsys-spark-checkpoint-") as folder:
            self._save(Path(folder), is_over)
            self._checkpoints.keep(Path(folder))
        self._saved_at = time.perf_counter()
        self._saving_s = self._saved_at - started

    def _save(self, folder: Path, is_over: bool) -> None:
        arrays: dict[str, Any] = {f"variable-{n}": as_array(each) for n, each in enumerate(_variables(self.model))}
        stopping = {}
        if self._stopping is not None:
            best, best_epoch, wait = self._stopping.best, self._stopping.best_epoch, self._stopping.wait
            stopping = {"best": float(best), "best_epoch": best_epoch, "wait": wait}
            arrays |= {f"best-{place}": weights for place, weights in enumerate(self._stopping.best_weights)}
        np.savez(folder / ARRAYS, **arrays)
        state = {
            "purpose": self._purpose,
            "is_over": is_over,
            "most_epochs": self.params["epochs"],
            "history": [asdict(log) for log in self._history],
            "stopping": stopping,
        }
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")


def _variables(model: keras.Model) -> list[Any]:
    """Weights, and what the optimizer keeps."""
    return [*model.weights, *(model.optimizer.variables if model.optimizer is not None else [])]


def _listed(arrays: dict[str, NDArray[Any]], name: str) -> list[NDArray[Any]]:
    count = sum(key.startswith(f"{name}-") for key in arrays)
    return [arrays[f"{name}-{place}"] for place in range(count)]
