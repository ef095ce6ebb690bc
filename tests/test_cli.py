"""The command line at its edge: help, wrong input, broken files. Whole nights are in `tests/night`."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs import nightly
from recsys_spark.cli import app, main
from tests.night.catalogue import FIRST_DAY, Event, Outcome, Workspace, write_events

COMMANDS = sorted(str(command.name) for command in app.registered_commands)
ROW = Event("ann", "tea", "4", "2024-03-01 10:00:00")


@pytest.fixture
def workspace(spark: SparkSession, tmp_path: Path) -> Workspace:
    workspace = Workspace(spark, tmp_path)
    write_events(tmp_path / "events.csv", [ROW])
    return workspace


def plain(text: str) -> str:
    """Without the colors that typer prints on some CI machines."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def refused(workspace: Workspace, outcome: Outcome, code: int = 2) -> str:
    """The one line on standard error; nothing else was printed or written."""
    assert outcome.code == code, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert not workspace.root.exists(), "nothing is written"
    return line.removeprefix("error: ")


def test_the_commands() -> None:
    looks = {"run", "advise", "compare", "tune", "plan", "publish", "list-runs", "show", "predict"}
    looks |= {"export", "rollback", "clean", "forget"}
    assert set(COMMANDS) == {step.name for step in nightly.STEPS} | looks


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    printed = plain(capsys.readouterr().out)
    assert f"recsys-spark {command} [OPTIONS]" in printed
    assert "--settings" in printed
    assert "TOML file with the settings." in printed


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = plain(capsys.readouterr().out)
    assert all(command in printed for command in COMMANDS)
    assert "recsys-spark run --settings conf/demo.toml" in " ".join(printed.split())


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["show", "--settings", "x.toml"], ["nothing"], ["run", "--settings", "x.toml", "--colour"]],
    ids=["no settings", "no user", "no such command", "no such option"],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Usage: recsys-spark" in plain(capsys.readouterr().err)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_settings_file_is_named_by_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    of_user = ["--user", "a"]
    more = {"show": of_user, "forget": of_user, "predict": ["--pairs", "a.csv"], "export": ["--to", "a"]}
    assert main([command, "--settings", "/nowhere/a.toml", *more.get(command, [])]) == 2
    assert capsys.readouterr().err == (
        "error: settings file '/nowhere/a.toml' cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"model.epoch": "3"}, "model.epoch: unknown setting, got 3"),
        ({"model.epochs": "many"}, "model.epochs: Input should be a valid integer"),
        ({"events.timezone": "Mars/Olympus"}, "events.timezone: 'Mars/Olympus' is not a time zone"),
        ({"events.path": "/nowhere/events"}, "events.path: '/nowhere/events' does not exist"),
        ({"events.format": "table"}, "events.path: "),
        (
            {"events.columns.user": "who"},
            "events.columns.user: the input has no column 'who'; it has user, item, stars",
        ),
        ({"items.path": "/nowhere/items", "items.id": "a"}, "items.path: '/nowhere/items' does not exist"),
        ({"storage.root": "$NO_SUCH_VARIABLE/root"}, "storage.root: '$NO_SUCH_VARIABLE/root' names an environment"),
        ({"storage.root": "{folder}/events.csv/root"}, "storage.root '{folder}/events.csv/root' cannot be written"),
    ],
)
def test_wrong_settings_paths_and_columns(workspace: Workspace, sets: dict[str, str], message: str) -> None:
    folder = str(workspace.folder)
    chosen = {key: value.replace("{folder}", folder) for key, value in sets.items()}
    outcome = workspace.cli("run", "--run-date", FIRST_DAY, sets=chosen)
    assert message.replace("{folder}", folder) in refused(workspace, outcome)


@pytest.mark.parametrize("command", ["run", "ingest", "train", "publish"])
@pytest.mark.parametrize("date", ["yesterday", "2026-02-30", "22.11.2026"])
def test_wrong_dates(workspace: Workspace, command: str, date: str) -> None:
    line = refused(workspace, workspace.cli(command, "--run-date", date))
    assert line == f"--run-date {date!r} is not a date of the form 2026-11-22"


def test_a_column_of_a_wrong_type(workspace: Workspace) -> None:
    frame = workspace.spark.createDataFrame(
        [("ann", "tea", 4.0, [1])], "user string, item string, stars double, at array<int>"
    )
    frame.write.parquet(str(workspace.folder / "events"))
    sets = {"events.path": str(workspace.folder / "events"), "events.format": "parquet"}
    line = refused(workspace, workspace.cli("run", sets=sets))
    assert line.startswith("events.columns.timestamp: column 'at' is array<int>; times are timestamps")


def test_steps_and_resume_need_a_run(workspace: Workspace) -> None:
    for command in ("index", "publish"):
        line = refused(workspace, workspace.cli(command, "--run-date", FIRST_DAY))
        assert line == (
            f"{workspace.root} has no unfinished run of {FIRST_DAY}: start one with the step ingest, or name a run id"
        )
    line = refused(workspace, workspace.cli("run", "--resume", "20240309T000000Z-abcdef"))
    assert line == (
        f"there is no run 20240309T000000Z-abcdef under {workspace.root}: list them with recsys-spark list-runs"
    )


def test_a_run_goes_on_only_with_its_settings_and_date(workspace: Workspace) -> None:
    assert workspace.cli("ingest", "--run-date", FIRST_DAY).code == 0
    run_id = workspace.newest(FIRST_DAY)
    other = workspace.cli("index", "--run-id", run_id, sets={"model.epochs": "7"})
    assert other.code == 2
    assert f"run {run_id} was started with settings" in other.err
    dated = workspace.cli("index", "--run-id", run_id, "--run-date", "2024-03-10")
    assert (dated.code, dated.err) == (
        2, f"error: run {run_id} is of {FIRST_DAY}, not of --run-date 2024-03-10\n",
    )  # fmt: skip
    assert len(workspace.runs()) == 1


def test_too_many_quarantined_rows_end_with_3(workspace: Workspace) -> None:
    write_events(workspace.folder / "events.csv", [ROW] * 9 + [Event("", "tea", "4", "2024-03-01")])
    outcome = workspace.cli("run", "--run-date", FIRST_DAY)
    assert outcome.code == 3
    (line,) = outcome.err.splitlines()
    assert "1 of 10 input rows (10.0%) were quarantined, more than events.max_quarantined_share = 0.05" in line
    assert "user_id_missing 1" in line
    assert workspace.current() is None
    assert not list(workspace.root.glob("runs/*/*/_MANIFEST.json"))


@pytest.mark.parametrize("name", ["events.parquet", "events.csv.gz"])
def test_a_truncated_file_is_one_line_that_names_it(workspace: Workspace, name: str) -> None:
    path = workspace.folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress((workspace.folder / "events.csv").read_bytes())[:25])
    else:
        frame = workspace.spark.createDataFrame([ROW] * 100, ", ".join(f"{name} string" for name in Event._fields))
        frame.coalesce(1).write.parquet(str(workspace.folder / "whole"))
        (part,) = (workspace.folder / "whole").glob("*.parquet")
        path.write_bytes(part.read_bytes()[:-50])
    sets = {"events.path": str(path), "events.format": "csv" if name.endswith(".gz") else "parquet"}
    line = refused(workspace, workspace.cli("run", sets=sets), code=1)
    assert re.fullmatch(rf"events: file file:(//)?{path} is corrupt or not in the format the settings name; .*", line)


def test_a_file_that_breaks_while_it_is_read_stops_the_step(workspace: Workspace) -> None:
    folder = workspace.folder / "parts"
    write_events(folder / "a.csv", [ROW] * 5)
    lines = "".join(f"user {number},item {number * 7919 % 1000},4,2024-03-01\n" for number in range(20_000))
    whole = gzip.compress(("user,item,stars,at\n" + lines).encode())
    (folder / "b.csv.gz").write_bytes(whole[: len(whole) // 2])
    outcome = workspace.cli("run", "--run-date", FIRST_DAY, sets={"events.path": str(folder)})
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: step ingest failed: events: file file:")
    assert f"{folder}/b.csv.gz is corrupt" in line
    assert workspace.current() is None
