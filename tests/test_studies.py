"""Studies in a journal file: what is measured, what wins, and what a kill leaves."""

from __future__ import annotations

import datetime
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.studies import Trial, open_study
from recsys_spark.tune_sections import SearchSpace

SPACE = {
    "ease.l2": SearchSpace(low=0.01, high=10.0, log=True),
    "neighbors.k": SearchSpace(low=1, high=50),
    "neighbors.weighting": SearchSpace(choices=("none", "l2")),
}
UNTOUCHED = {"ease.l2": 0.02, "neighbors.k": "all", "neighbors.weighting": "none"}
SIZES, FACTOR, NIGHT = [100, 200, 400], 2, datetime.date(2026, 11, 22)
Measure = Callable[[Mapping[str, Any], int], float]


def score(values: Mapping[str, Any], sample: int) -> float:
    """More users, more of it; the rest goes up and down with l2, so that early trials may be the best."""
    return 0.5 + 0.1 * sample + 0.2 * math.sin(40 * math.log(values.get("ease.l2", 0.02)))


def opened(path: Path, **changes: Any) -> Any:
    return open_study(path, {"settings": "abc", **changes}, NIGHT, SPACE, SIZES, FACTOR, 7)


def run_trials(path: Path, number: int, measure: Measure = score) -> list[Trial]:
    with opened(path) as study:
        while len(study.trials) < number:
            study.run_trial(UNTOUCHED, measure)
        return list(study.trials)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """Of a study that nothing interrupts."""
    return run_trials(tmp_path_factory.mktemp("study") / "whole.journal", 16)


def test_the_first_trial_is_the_settings_as_they_are(trials: list[Trial]) -> None:
    first = trials[0]
    assert (first.number, first.is_untouched, first.is_pruned) == (0, True, False)
    assert first.measured == pytest.approx({100: 0.6127, 200: 0.7127, 400: 0.8127}, abs=1e-4)
    assert first.values == {"ease.l2": 0.02, "neighbors.weighting": "none"}, "of what may be drawn"
    assert not any(trial.is_untouched for trial in trials[1:])


def test_values_are_drawn_from_the_space(trials: list[Trial]) -> None:
    for trial in trials[1:]:
        assert set(trial.values) == set(SPACE)
        assert 0.01 <= trial.values["ease.l2"] <= 10
        assert isinstance(trial.values["neighbors.k"], int)
        assert trial.values["neighbors.weighting"] in ("none", "l2")
    assert len({trial.values["ease.l2"] for trial in trials}) == len(trials)


def test_only_the_best_reach_the_largest_sample(trials: list[Trial]) -> None:
    """A trial goes on when it is among the best half of those measured on the same sample so far."""
    reached: dict[int, list[float]] = {size: [] for size in SIZES}
    for trial in trials:
        for place, size in enumerate(SIZES):
            if size not in trial.measured:
                break
            reached[size].append(trial.measured[size])
            kept = sorted(reached[size], reverse=True)[: max(len(reached[size]) // FACTOR, 1)]
            goes_on = size != SIZES[-1] and trial.measured[size] >= kept[-1]
            assert goes_on == (place + 1 < len(trial.measured)), trial
        assert (trial.value is None) == trial.is_pruned == (len(trial.measured) < len(SIZES))
    assert sum(trial.is_pruned for trial in trials) >= 3


def test_the_settings_as_they_are_reach_it_however_they_rank(tmp_path: Path) -> None:
    falling = iter(range(100, 0, -1))
    trials = run_trials(tmp_path / "a.journal", 3, lambda *_: float(next(falling)))
    assert [len(trial.measured) for trial in trials] == [3, 1, 1]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.test_studies import run_trials, score
wanted, calls = int(sys.argv[2]), 0
def measure(values, sample):
    global calls
    calls += 1
    if calls == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    return score(values, sample)
run_trials(Path(sys.argv[1]), 16, measure)
"""


def kill_in(path: Path, call: int) -> None:
    """A process of its own that is killed while it measures for the so manyth time."""
    arguments = [sys.executable, "-c", KILLED, str(path), str(call)]
    done = subprocess.run(arguments, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.timeout(300)
def test_a_study_that_is_killed_goes_on_to_the_same_trials(tmp_path: Path, trials: list[Trial]) -> None:
    """Killed in the first trial, and in a later one that was measured on a sample already and competes no more."""
    path = tmp_path / "killed.journal"
    kill_in(path, 2)
    assert run_trials(path, 0) == []
    counts = [len(trial.measured) for trial in trials]
    later = next(number for number, count in enumerate(counts) if number > 3 and count > 1)
    kill_in(path, sum(counts[:later]) + 2)
    assert run_trials(path, 0) == trials[:later]
    assert run_trials(path, 16) == trials


def test_what_was_cut_off_does_not_compete(tmp_path: Path, trials: list[Trial]) -> None:
    """Each trial is cut off twice on each sample; a second process would see it running, as after a kill."""
    path = tmp_path / "cut.journal"
    cuts: dict[Any, int] = {}

    def measure(values: Mapping[str, Any], sample: int) -> float:
        key = (*values.values(), sample)
        cuts[key] = cuts.get(key, 0) + 1
        if cuts[key] <= 2:
            raise KeyboardInterrupt
        return score(values, sample)

    for _ in range(2 * len(SIZES) * len(trials)):
        with suppress(KeyboardInterrupt):
            run_trials(path, len(trials), measure)
    assert max(cuts.values()) >= 3
    assert run_trials(path, len(trials)) == trials


def test_a_line_that_a_kill_tore_is_dropped(tmp_path: Path, trials: list[Trial]) -> None:
    path = tmp_path / "torn.journal"
    run_trials(path, 3)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert run_trials(path, 16) == trials


def test_a_trial_that_fails_leaves_its_message_and_the_others_go_on(tmp_path: Path) -> None:
    def measure(values: Mapping[str, Any], sample: int) -> float:
        if values and values["neighbors.weighting"] == "l2":
            raise ValueError("no l2\nand more")
        return score(values, sample)

    trials = run_trials(tmp_path / "a.journal", 8, measure)
    failed = [trial for trial in trials if trial.problem is not None]
    assert failed
    assert all(trial.problem == "ValueError: no l2" for trial in failed)
    assert all(trial.value is None for trial in failed)
    assert all((trial.problem is None) == (trial.values["neighbors.weighting"] == "none") for trial in trials)


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    run_trials(path, 1)
    message = r"a.journal holds a study that was begun with other settings: restore"
    with pytest.raises(SettingsError, match=message), opened(path, settings="def"):
        pass
    with opened(path) as study:
        assert study.run_date == NIGHT


@pytest.mark.parametrize("content", ["[model]\nl2 = 3\n", "[model]", "[1]\n", '{"a": 1}\n'])
def test_a_file_that_is_no_study_is_refused_and_stays(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"settings.toml: it is not the journal of a study"), opened(path):
        pass
    assert path.read_text() == content


def test_two_processes_do_not_work_on_one_study(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    with opened(path), pytest.raises(RecsysError, match=r"a.journal is in use"), opened(path):
        pass
