"""The command `tune` on a tiny catalogue: what it knows, what it writes, and a night with that."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from jobs import nightly
from recsys_spark import tuning
from recsys_spark.config import Settings, load_settings
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.night import Step
from recsys_spark.report.tuned import gain_of, print_trial, print_tuned
from recsys_spark.search_spaces import Values
from recsys_spark.storage.runs import open_run
from recsys_spark.studies import Trial
from recsys_spark.tables import INTERACTIONS, ITEMS, USERS
from recsys_spark.tuning import Tuned, output_paths, sample_sizes
from recsys_spark.tuning_samples import Sample, prepare_samples
from tests.night.catalogue import (
    FIRST_DAY,
    SECOND_DAY,
    Workspace,
    checkerboard,
    item_id,
    run_cli,
    user_id,
    write_events,
)

TUNE = '[tune]\nmin_users = 10\nk = 3\n[tune.spaces.ease]\n"ease.l2" = { low = 0.5, high = 50.0, log = true }\n'
SETS = {"recommend.model": "ease", "neighbors.enabled": "false", "model.epochs": "2"}
Pairs = dict[tuple[str, str], str]


def pairs_of(spark: SparkSession, root: str, run_id: str) -> Pairs:
    """The split of each pair, by external ids."""
    storage = open_run(spark, root, run_id)
    named = storage.read(INTERACTIONS).join(storage.read(USERS), "user_idx").join(storage.read(ITEMS), "item_idx")
    return {(row["user_id"], row["item_id"]): row["split"] for row in named.collect()}


def newest_pairs() -> dict[str, list[str]]:
    """The items of each user, the newest first."""
    items: dict[str, list[str]] = {}
    for event in sorted(checkerboard(), key=lambda event: event.at, reverse=True):
        items.setdefault(event.user, []).append(event.item)
    return items


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_night_runs_with_what_tuning_has_written(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of about 10 and all 30 users. No trial knows a user's newest pair; it is measured on the one before."""
    workspace = Workspace(spark, tmp_path, SETS)
    workspace.settings.write_text(workspace.settings.read_text() + TUNE)
    write_events(tmp_path / "events.csv", checkerboard())
    known: list[Pairs] = []
    measure = tuning.measure_sample

    def watch(spark: SparkSession, sample: Sample, values: Values, steps: Sequence[Step], scratch: Path) -> float:
        assert [step.name for step in steps] == ["train", "blend", "evaluate"]
        known.append(pairs_of(spark, sample.settings.storage.root, sample.run_id))
        return measure(spark, sample, values, steps, scratch)

    monkeypatch.setattr(tuning, "measure_sample", watch)
    arguments = ["--trials", "3", "--run-date", FIRST_DAY, "--storage", str(tmp_path / "kept.journal")]
    outcome = workspace.cli("tune", *arguments)
    assert outcome.code == 0, outcome.out + outcome.err
    assert not workspace.root.exists(), "the root is not touched"
    assert "trial 0: NDCG@3 0." in outcome.err
    assert "; the settings as they are" in outcome.err
    assert len(known) >= 4, "the first trial on both samples, the others on one"

    newest = newest_pairs()
    assert {len({user for user, _ in pairs}) for pairs in known} == {len({user for user, _ in known[0]}), 30}
    for pairs in known:
        users = {user for user, _ in pairs}
        expected = {(user, item): "train" for user in users for item in newest[user][3:]}
        expected |= {(user, newest[user][2]): "validation" for user in users}
        expected |= {(user, newest[user][1]): "test" for user in users}
        assert pairs == expected

    written = tmp_path / "settings.tuned.toml"
    tuned, before = tomllib.loads(written.read_text()), tomllib.loads(workspace.settings.read_text())
    changed = before | {"recommend": before["recommend"] | {"model": "ease"}, "model": before["model"] | {"epochs": 2}}
    changed["neighbors"] = before["neighbors"] | {"enabled": False}
    l2 = tuned.pop("ease", {"l2": 500.0})["l2"]
    assert tuned == changed
    assert load_settings(written).ease.l2 == l2
    assert f"Written: {written}" in outcome.out.replace("\n", "")

    again = workspace.cli("tune", *arguments, "--output", str(tmp_path / "again.toml"))
    assert (again.code, again.out.splitlines()[:-1]) == (0, outcome.out.splitlines()[:-1])
    assert "trial" not in again.err, "the study holds as many"
    other = workspace.cli("tune", *arguments, sets={"model.epochs": "3"})
    assert other.code == 2
    assert "kept.journal holds a study that was begun with other settings" in other.err

    night = run_cli(spark, "run", "--settings", str(written), "--run-date", FIRST_DAY)
    assert night.code == 0, night.out + night.err
    assert len(workspace.lists()) == 30


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_samples_hold_no_test_pair_of_a_night_that_others_came_before(spark: SparkSession, tmp_path: Path) -> None:
    """A later night numbers ids in the order they came, a sample anew. Two events of each user share a moment."""
    workspace = Workspace(spark, tmp_path, SETS | {"evaluate.share": "0.2"})
    days = [dict(zip("12345", shared, strict=True)) for shared in ("12245", "12445")]
    events = [
        event._replace(at=f"2024-03-0{days[int(event.user[1:]) % 2][event.at[9]]} 00:00:00") for event in checkerboard()
    ]
    early = [event for event in events if event.user >= user_id(15) and event.item >= item_id(8)]
    write_events(tmp_path / "events.csv", early)
    workspace.night(FIRST_DAY)
    write_events(tmp_path / "events.csv", events)
    for split in ("last", "newest", "time", "random", "fold"):
        sets, folder = {"evaluate.split": split}, tmp_path / split
        for step in ("ingest", "index", "interactions"):
            assert workspace.cli(step, "--run-date", SECOND_DAY, sets=sets).code == 0
        night = pairs_of(spark, str(workspace.root), workspace.newest(SECOND_DAY))
        settings = load_settings(workspace.settings, workspace.arguments(sets)[1::2])
        folder.mkdir()
        day = datetime.date.fromisoformat(SECOND_DAY)
        (sample,) = prepare_samples(spark, settings, [0.5], day, nightly.STEPS[:3], folder, Console(stderr=True))
        pairs = pairs_of(spark, sample.settings.storage.root, sample.run_id)
        users = {user for user, _ in pairs}
        assert 5 < len(users) < 25
        kept = {pair: name for pair, name in night.items() if pair[0] in users and name != "test"}
        assert pairs.keys() == kept.keys()
        assert {pair for pair, name in pairs.items() if name == "test"} == {
            pair for pair, name in kept.items() if name == "validation"
        }
        assert "validation" in pairs.values()


@pytest.mark.parametrize(
    ("users", "least", "factor", "sizes"),
    [
        (5_000, 100, 3, [185, 555, 1665, 5_000]),
        (943, 100, 3, [104, 312, 943]),
        (90, 100, 3, [90]),
        (400, 100, 2, [100, 200, 400]),
    ],
)
def test_samples_grow_to_all_users(users: int, least: int, factor: int, sizes: list[int]) -> None:
    assert sample_sizes(users, least, factor) == sizes


def test_files_lie_beside_the_settings() -> None:
    assert output_paths("conf/demo.toml", None, None) == (
        Path("conf/demo.tuned.toml"),
        Path("conf/demo.tuned.journal"),
    )


@pytest.mark.parametrize(
    ("output", "storage", "message"),
    [
        ("conf/../conf/demo.toml", None, "--output .*demo.toml would overwrite the settings"),
        (None, "conf/demo.toml", "--storage conf/demo.toml would overwrite the settings"),
        ("conf/a.toml", "conf/a.toml", "--storage conf/a.toml would overwrite the settings"),
        ("nowhere/a.toml", None, "--output nowhere/a.toml cannot be written: its folder is not there"),
        ("conf", None, "--output conf cannot be written"),
    ],
)
def test_no_file_takes_the_place_of_another(output: str | None, storage: str | None, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        output_paths("conf/demo.toml", output, storage)


def tuned(*trials: Trial) -> Tuned:
    settings = Settings(storage={"root": "x"}, events={"path": "x", "columns": {"rating": "r", "timestamp": "t"}})
    return Tuned(settings, {"model.l2": 0.01, "model.unobserved_weight": None}, trials)


AS_THEY_ARE = Trial(0, {"model.l2": 0.01}, {10: 0.1, 30: 0.2}, is_untouched=True, is_pruned=False)
BETTER = Trial(1, {"model.l2": 0.02, "model.unobserved_weight": 0.5}, {10: 0.1, 30: 0.25}, False, False)
PRUNED = Trial(2, {"model.l2": 0.03, "model.unobserved_weight": 0.5}, {10: 0.9}, False, True)
FAILED = Trial(3, {"model.l2": 0.04, "model.unobserved_weight": 0.5}, {}, False, False, "no memory")


def test_only_what_was_measured_on_the_largest_sample_wins(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = tuned(AS_THEY_ARE, BETTER, PRUNED, FAILED)
    assert outcome.changes == BETTER.values
    print_tuned(outcome, Console(width=100))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == [
        ["model.l2", "0.01", "0.02"],
        ["model.unobserved_weight", "none", "0.5"],
        ["validation", "NDCG@10", "0.2000", "0.2500"],
    ]
    assert " ".join(lines[4]) == (
        "validation NDCG@10 0.2500 (trial 1), 0.2000 before, +25.0%; 4 trials, 1 pruned, 1 failed."
    )


def test_settings_that_nothing_beats_stay() -> None:
    worse = Trial(1, {"model.l2": 0.02}, {10: 0.1, 30: 0.2}, False, False)
    assert tuned(AS_THEY_ARE, worse).changes == {}
    assert gain_of(tuned(AS_THEY_ARE, worse)).endswith("none of the trials ranks better than the settings as they are")


def test_when_all_trials_fail_the_first_says_why() -> None:
    first = Trial(0, {}, {}, True, False, "no disk")
    with pytest.raises(RecsysError, match="all 2 trials failed, the first with: no disk"):
        _ = tuned(first, FAILED).best
    assert "the settings as they are failed: no disk" in gain_of(tuned(first, BETTER))


@pytest.mark.parametrize(
    ("trial", "line"),
    [
        (AS_THEY_ARE, "trial 0: NDCG@10 0.1000 -> 0.2000; the settings as they are"),
        (PRUNED, "trial 2: NDCG@10 0.9000, pruned; model.l2=0.03 model.unobserved_weight=0.5"),
        (FAILED, "trial 3: NDCG@10 -, failed: no memory; model.l2=0.04 model.unobserved_weight=0.5"),
    ],
)
def test_a_line_a_trial(trial: Trial, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_trial(trial, "NDCG@10", Console(width=20))
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("arguments", "sets", "message"),
    [
        (["--output", "{folder}/settings.toml"], {}, "would overwrite the settings"),
        ([], {"tune.spaces": '{ ease = { "ease.l3" = { low = 1, high = 2 } } }'}, "ease.'ease.l3': unknown setting"),
        ([], {"events.columns.item": "what"}, "events.columns.item: the input has no column 'what'"),
    ],
)
def test_wrong_input_is_told(
    spark: SparkSession, tmp_path: Path, arguments: list[str], sets: dict[str, Any], message: str
) -> None:
    workspace = Workspace(spark, tmp_path)
    write_events(tmp_path / "events.csv", checkerboard())
    before = sorted(tmp_path.iterdir())
    outcome = workspace.cli("tune", *[part.format(folder=tmp_path) for part in arguments], sets=sets)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"
