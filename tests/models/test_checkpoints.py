"""Training that was interrupted, or killed, gives the bits it would have given."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from recsys_spark.model_sections import Loss, ModelSettings
from recsys_spark.models.checkpoints import EpochLog
from recsys_spark.models.training import Fit, fit_embeddings
from tests.models.conftest import split_checkerboard
from tests.models.test_training import digest


class FolderCheckpoints:
    """Keeps every checkpoint in a folder by its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def kept(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*"), key=lambda path: int(path.name))

    def newest(self) -> Path | None:
        return self.kept()[-1] if self.kept() else None

    def discard(self) -> None:
        for folder in self.kept():
            shutil.rmtree(folder)

    def keep(self, folder: Path) -> None:
        shutil.copytree(folder, self._folder / "new")
        (self._folder / "new").rename(self._folder / str(len(self.kept())))


CASES: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss} for loss in get_args(Loss)},
    "in-batch": {"loss": "sampled_softmax", "in_batch_negatives": True, "popularity_exponent": 0.5, "negatives": 8},
    "two_tower": {"loss": "softmax", "architecture": "two_tower", "own_embedding": True},
    "neumf": {"loss": "bce", "architecture": "neumf", "hidden_units": 4},
}


def fit(
    case: str, folder: Path | None, on_epoch: Callable[[EpochLog], None] | None = None, epochs: int | None = None
) -> Fit:
    train, validation = split_checkerboard(40, 30)
    settings = ModelSettings(embedding_dim=6, batch_size=40, epochs=9, patience=4, l2=0.02, **CASES[case])
    return fit_embeddings(
        train,
        settings,
        5,
        validation=validation,
        epochs=epochs,
        on_epoch=on_epoch,
        checkpoints=None if folder is None else FolderCheckpoints(folder),
    )


class Interrupted(Exception):
    pass


def interrupt_at(epoch: int) -> Callable[[EpochLog], None]:
    def stop(log: EpochLog) -> None:
        if log.epoch == epoch:
            raise Interrupted

    return stop


@pytest.fixture(autouse=True)
def save_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_spark.models.checkpoints.SHARE_OF_TIME", 1e9)


@pytest.mark.parametrize(
    ("case", "epochs"),
    [
        ("ials", None),
        ("bpr", 8),
        *(pytest.param(case, None, marks=pytest.mark.slow) for case in CASES if case != "ials"),
        pytest.param("ials", 8, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_gives_the_same_bits(case: str, epochs: int | None, tmp_path: Path) -> None:
    whole = fit(case, None, epochs=epochs)
    for epoch in (3, 5):
        with pytest.raises(Interrupted):
            fit(case, tmp_path, interrupt_at(epoch), epochs)
    later: list[EpochLog] = []
    resumed = fit(case, tmp_path, later.append, epochs)
    assert digest(resumed.embeddings) == digest(whole.embeddings)
    assert [log.loss for log in resumed.history] == [log.loss for log in whole.history]
    assert [log.validation_ndcg for log in resumed.history] == [log.validation_ndcg for log in whole.history]
    assert resumed.best_epoch == whole.best_epoch
    assert later[0].epoch == 5, "the fourth epoch was the last one kept"


@pytest.mark.parametrize("loss", ["ials", "bpr"])
def test_a_training_that_is_over_is_not_repeated(loss: Loss, tmp_path: Path) -> None:
    whole, later = fit(loss, tmp_path), list[EpochLog]()
    again = fit(loss, tmp_path, later.append)
    assert not later
    assert digest(again.embeddings) == digest(whole.embeddings)
    assert (again.best_epoch, again.history) == (whole.best_epoch, whole.history)


def test_a_checkpoint_of_another_fit_is_not_taken_up(tmp_path: Path) -> None:
    fit("ials", tmp_path, epochs=3)
    logs: list[EpochLog] = []
    fit("bpr", tmp_path, logs.append, epochs=2)
    assert [log.epoch for log in logs] == [1, 2]


def test_a_damaged_checkpoint_costs_time_only(tmp_path: Path) -> None:
    whole = fit("ials", tmp_path, epochs=3)
    newest = FolderCheckpoints(tmp_path).newest()
    assert newest is not None
    for name, content in (("arrays.npz", b"PK\x03\x04"), ("arrays.npz", b""), ("state.json", b"{")):
        (newest / name).write_bytes(content)
        logs: list[EpochLog] = []
        assert digest(fit("ials", tmp_path, logs.append, 3).embeddings) == digest(whole.embeddings)
        assert [log.epoch for log in logs] == [1, 2, 3]
        newest = FolderCheckpoints(tmp_path).newest()
        assert newest is not None


def test_a_checkpoint_of_other_pairs_is_not_taken_up(tmp_path: Path) -> None:
    settings, logs = ModelSettings(loss="ials", embedding_dim=6), list[EpochLog]()
    for seed in (0, 1):  # as many pairs, others
        train, _ = split_checkerboard(40, 30, seed)
        checkpoints = FolderCheckpoints(tmp_path)
        fit_embeddings(train, settings, 5, epochs=2, on_epoch=logs.append, checkpoints=checkpoints)
    assert [log.epoch for log in logs] == [1, 2, 1, 2]


def test_saving_takes_its_share_of_the_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys_spark.models.checkpoints.SHARE_OF_TIME", 1e-9)
    fit("ials", tmp_path, epochs=6)
    assert len(FolderCheckpoints(tmp_path).kept()) == 2, "the first epoch and the end"


CODE = """
import sys, time
from pathlib import Path
from tests.models.test_checkpoints import fit
from tests.models.test_training import digest
import recsys_spark.models.checkpoints as checkpoints

checkpoints.SHARE_OF_TIME = 1e9
slowly = (lambda log: time.sleep(0.3)) if sys.argv[2] == "slowly" else None
print(digest(fit("bpr", Path(sys.argv[1]), slowly, 9).embeddings))
"""


@pytest.mark.slow
def test_a_killed_training_gives_the_same_bits(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen([sys.executable, "-c", CODE, str(folder), "slowly"])
    while not folder.exists() or len(FolderCheckpoints(folder).kept()) < 3:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder / "new", ignore_errors=True)
    assert len(FolderCheckpoints(folder).kept()) < 9
    resumed = subprocess.run([sys.executable, "-c", CODE, str(folder), "fast"], capture_output=True, text=True)
    assert resumed.stdout.strip() == digest(fit("bpr", None, epochs=9).embeddings), resumed.stderr
