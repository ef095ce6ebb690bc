from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

from jobs import nightly
from recsys_spark.night import WRITERS
from recsys_spark.tables import TABLES

FOLDER = Path(nightly.__file__).parent
JOBS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
TABLE_JOBS = [job for job in JOBS if job not in ("nightly", "publish")]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_can_be_submitted_by_itself(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{job}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / f"{job}.py"), run_name="__main__")
    assert end.value.code == 0
    command = "run" if job == "nightly" else job
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert f"recsys-spark {command} [OPTIONS]" in printed


def test_the_night_runs_every_job_once() -> None:
    assert sorted(step.name for step in nightly.STEPS) == TABLE_JOBS
    for step in nightly.STEPS:
        assert step.run.__module__ == f"jobs.{step.name}"


def test_every_table_has_a_step_that_writes_it() -> None:
    assert {table.name for table in TABLES} <= WRITERS.keys()
    assert set(WRITERS.values()) <= {step.name for step in nightly.STEPS}


@pytest.mark.parametrize("job", [*TABLE_JOBS, "publish"])
def test_a_job_stays_thin(job: str) -> None:
    """No column logic: a job reads, calls and writes."""
    tree = ast.parse((FOLDER / f"{job}.py").read_text())
    (run,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert (run.end_lineno or 0) - run.lineno < 30
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not imported & {"functions", "Window", "Column"}
