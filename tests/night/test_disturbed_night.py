"""Every step fails, at its start and after it has written, and a Python worker is killed: readers notice nothing."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from jobs import nightly
from jobs import recommend as recommend_job
from recsys_spark.audit import Check
from recsys_spark.blockwise.plan import Blocks
from recsys_spark.blockwise.scorers import Scorer
from recsys_spark.night import Step
from tests.night.catalogue import SECOND_DAY, Outcome, Workspace
from tests.night.conftest import TwoNights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test waits for thirty attempts
STEPS = [step.name for step in nightly.STEPS]
COMPARED = (
    "recommendations",
    "similar_users",
    "similar_items",
    "user_neighbors",
    "interactions",
    "metrics",
    "backtest",
)


@dataclass(frozen=True)
class Attempt:
    """What one attempt printed, and what a reader saw after it."""

    outcome: Outcome
    current: str | None
    lists: str
    finished: frozenset[str]


@dataclass(frozen=True)
class Disturbed:
    """A night that was tried until nothing failed any more."""

    workspace: Workspace
    run_id: str
    attempts: dict[tuple[str, str], Attempt]
    last: Outcome
    executions: Counter[str]
    killed_worker: int
    failed_tasks: int


@pytest.fixture(scope="module")
def disturbed(nights: TwoNights, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Disturbed:
    """The second night once more, on a copy of the root on which it is already published."""
    workspace = nights.workspace.copy(tmp_path_factory.mktemp("disturbed") / "copy")
    marker = workspace.folder / "killed"
    executions: Counter[str] = Counter()
    attempts: dict[tuple[str, str], Attempt] = {}
    failed_tasks = 0

    def attempt(*names: str) -> Outcome:
        resume = [] if not attempts else ["--resume", workspace.newest(SECOND_DAY)]
        sets = {"events.path": str(workspace.folder / "new.csv")}
        outcome = workspace.cli("run", "--run-date", SECOND_DAY, *resume, sets=sets)
        finished = frozenset(path.stem for path in _newest_folder(workspace).glob("_steps/*.json"))
        if names:
            attempts[names[0], names[1]] = Attempt(
                outcome, workspace.current(), workspace.digest("recommendations"), finished
            )
        return outcome

    for name in STEPS:
        for moment in ("start", "end"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(nightly, "STEPS", _failing(name, moment, executions))
                if (name, moment) == ("similar", "start"):  # the attempt in which recommend succeeds
                    patch.setattr(recommend_job, "list_scorer", _killing(recommend_job.list_scorer, marker))
                earlier = set(_failed_tasks(spark))
                attempt(name, moment)
                if (name, moment) == ("similar", "start"):
                    failed_tasks = sum(count for stage, count in _failed_tasks(spark).items() if stage not in earlier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "recsys_spark.auditing.audit_lists", lambda *_: (Check("lists with an item twice", 1, "0", False),)
        )
        attempt("audit", "refused")
    for moment, call in (("start", "describe_run"), ("end", "point_to")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"recsys_spark.storage.publishing.{call}", _raise)
            attempt("publish", moment)
    last = attempt()
    run_id = workspace.newest(SECOND_DAY)
    return Disturbed(workspace, run_id, attempts, last, executions, int(marker.read_text()), failed_tasks)


@pytest.mark.parametrize("moment", ["start", "end"])
@pytest.mark.parametrize("step", [*STEPS, "publish"])
def test_a_failing_step_is_named_and_leaves_the_published_run(
    disturbed: Disturbed, nights: TwoNights, step: str, moment: str
) -> None:
    attempt = disturbed.attempts[step, moment]
    assert attempt.outcome.code == 1
    outcome = "Nothing was published; what was published before stays current"
    if (step, moment) == ("publish", "end"):  # between the manifest and the pointer
        outcome = "The run is published, but readers may not be pointed to it yet"
    assert attempt.outcome.err.splitlines()[-1] == (
        f"error: step {step} failed: RuntimeError: out of luck. {outcome}. "
        f"To go on after mending the cause: recsys-spark run --resume {disturbed.run_id}"
    )
    assert attempt.current == nights.second
    assert attempt.lists == nights.workspace.digest("recommendations", nights.second)
    assert attempt.finished == set(STEPS if step == "publish" else STEPS[: STEPS.index(step)])


def test_a_refused_audit_leaves_the_published_run(disturbed: Disturbed, nights: TwoNights) -> None:
    attempt = disturbed.attempts["audit", "refused"]
    assert attempt.outcome.code == 3
    (line,) = attempt.outcome.err.splitlines()
    assert line.startswith(
        "error: step audit failed: the audit refused to publish: lists with an item twice is 1, must"
    )
    assert attempt.current == nights.second


def test_the_resumed_night_gives_what_an_undisturbed_one_gives(disturbed: Disturbed, nights: TwoNights) -> None:
    assert disturbed.last.code == 0, disturbed.last.err
    assert disturbed.workspace.current() == disturbed.run_id != nights.second
    for table in COMPARED:
        assert disturbed.workspace.digest(table) == nights.workspace.digest(table, nights.second), table


def test_the_parent_is_of_an_earlier_date_not_the_run_published_last(disturbed: Disturbed, nights: TwoNights) -> None:
    assert disturbed.workspace.manifest()["parent"] == nights.first


def test_finished_steps_are_not_run_again(disturbed: Disturbed) -> None:
    # Once before it failed at its end, once more; the audit's second run, in the last attempts, is not counted.
    assert disturbed.executions == {**dict.fromkeys(STEPS, 2), "audit": 1}
    assert not any(f"\n{step} " in disturbed.last.out for step in STEPS)


def test_a_killed_worker_does_not_change_the_lists(disturbed: Disturbed, nights: TwoNights) -> None:
    assert disturbed.killed_worker > 1
    assert not psutil.pid_exists(disturbed.killed_worker)
    assert disturbed.failed_tasks == 1, "the kill came while a task of the step ran, and the task ran again"
    assert disturbed.workspace.digest("recommendations") == nights.workspace.digest("recommendations", nights.second)


def _failing(name: str, moment: str, executions: Counter[str]) -> tuple[Step, ...]:
    """The steps, counted, with one that fails."""

    def counted(step: Step) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            if (step.name, moment) == (name, "start"):
                _raise()
            executions[step.name] += 1
            facts = step.run(*arguments)
            return _raise() if step.name == name else facts

        return run

    return tuple(replace(step, run=counted(step)) for step in nightly.STEPS)


def _raise(*_: Any, **__: Any) -> None:
    raise RuntimeError("out of luck")


def _killing(list_scorer: Callable[..., tuple[Blocks, Scorer]], marker: Path) -> Callable[..., Any]:
    """Makes a scorer whose first call kills the Python worker it runs in."""

    def choose(*arguments: Any) -> tuple[Blocks, Any]:
        blocks, scorer = list_scorer(*arguments)

        def score(*call: Any) -> Any:
            try:
                with marker.open("x") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
            return scorer(*call)

        score.columns = scorer.columns
        return blocks, score

    return choose


def _failed_tasks(spark: SparkSession) -> dict[int, int]:
    """Failed tasks of each stage that Spark remembers."""
    tracker = spark.sparkContext.statusTracker()
    jobs = [info for job in tracker.getJobIdsForGroup(None) if (info := tracker.getJobInfo(job))]
    stages = {stage for info in jobs for stage in info.stageIds}
    return {stage: info.numFailedTasks for stage in stages if (info := tracker.getStageInfo(stage))}


def _newest_folder(workspace: Workspace) -> Path:
    return workspace.run_folder(workspace.newest(SECOND_DAY))
