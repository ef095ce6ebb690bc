"""A night whose training is interrupted goes on from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark import learning
from recsys_spark.models.checkpoints import EpochLog
from tests.night.catalogue import FIRST_DAY, Workspace, checkerboard, write_events

pytestmark = pytest.mark.slow

SETS = {"model.epochs": "6", "model.loss": "bpr"}


def night(spark: SparkSession, folder: Path) -> Workspace:
    workspace = Workspace(spark, folder, SETS)
    write_events(folder / "events.csv", checkerboard())
    return workspace


@pytest.fixture(scope="module")
def undisturbed(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = night(spark, tmp_path_factory.mktemp("undisturbed"))
    workspace.night(FIRST_DAY)
    return workspace


@pytest.mark.parametrize("interrupted", ["selection", "refit"])
def test_the_resumed_night_is_the_same_as_an_undisturbed_one(
    undisturbed: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    monkeypatch.setattr("recsys_spark.models.checkpoints.SHARE_OF_TIME", 1e9)
    reported: list[tuple[str, int]] = []
    make_reporter = learning.epoch_reporter

    def reporter(title: str, epochs: int) -> Callable[[EpochLog], None]:
        report = make_reporter(title, epochs)

        def stop(log: EpochLog) -> None:
            reported.append((title, log.epoch))
            if (title, log.epoch) == (interrupted, 3) and reported.count((title, log.epoch)) == 1:
                raise RuntimeError("the machine went away")
            report(log)

        return stop

    monkeypatch.setattr(learning, "epoch_reporter", reporter)
    workspace = night(undisturbed.spark, tmp_path)
    failed = workspace.cli("run", "--run-date", FIRST_DAY)
    assert failed.code == 1
    assert "step train failed: RuntimeError: the machine went away" in failed.err
    run_id = workspace.newest(FIRST_DAY)
    assert list(workspace.run_folder(run_id).glob("*-checkpoint-*"))
    before = len(reported)
    workspace.night(FIRST_DAY, "--resume", run_id)
    assert reported[before] == (interrupted, 3), "the third epoch was not kept, the first two were"
    for fit in ("model", "selection"):
        arrays, expected = workspace.arrays(fit), undisturbed.arrays(fit)
        assert arrays.keys() == expected.keys()
        assert all(arrays[name].tobytes() == expected[name].tobytes() for name in expected)
    assert workspace.digest("recommendations") == undisturbed.digest("recommendations")
    assert not list(workspace.run_folder().glob("*-checkpoint-*")), "checkpoints end with the step"
    assert "checkpoint" not in str(workspace.manifest())
