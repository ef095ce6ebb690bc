"""A tiny catalogue with a known answer, and a workspace that runs the command line on it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import shutil
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.cli import main
from tests.conftest import SPARK_CONF

N_USERS, N_ITEMS, TAKEN, TOP_K = 30, 16, 5, 3
FIRST_DAY, SECOND_DAY = "2024-03-09", "2024-03-10"

SETTINGS = """
seed = 3

[storage]
root = "{folder}/root"

[spark]
shuffle_partitions = 2

[events]
path = "{folder}/events.csv"
format = "csv"
columns = {{ user = "user", item = "item", rating = "stars", timestamp = "at" }}

[feedback]
range = [1, 5]
lowest = 0.2

[matrix]
block_users = 8

[neighbors]
k = 6

[model]
embedding_dim = 4
l2 = 0.1
epochs = 30
patience = 30
batch_size = 64

[recommend]
top_k = 3

[evaluate]
ks = [1, 3]
"""

DESCRIBED = """
[users]
path = "{folder}/users.csv"
format = "csv"
id = "name"

[items]
path = "{folder}/items.csv"
format = "csv"
id = "code"
attributes = {{ title = "label" }}
"""


class Event(NamedTuple):
    """An input row; every value is text, as in a file."""

    user: str
    item: str
    stars: str
    at: str


class List(NamedTuple):
    """The published list of a user."""

    item_ids: list[str]
    scores: list[float]
    tier: str


class Outcome(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def checkerboard(taken: int = TAKEN, seed: int = 0) -> list[Event]:
    """Even users take even items and odd users odd ones, one a day from March 1: all of their half but three."""
    chance = random.Random(seed)
    halves = {user: chance.sample(range(user % 2, N_ITEMS, 2), taken) for user in range(N_USERS)}
    return [
        Event(user_id(user), item_id(item), str(4 + (user + item) % 2), f"2024-03-{day:02} {user % 24:02}:00:00")
        for user, half in halves.items()
        for day, item in enumerate(half, start=1)
    ]


def user_id(number: int) -> str:
    return f"u{number:02}"


def item_id(number: int) -> str:
    return f"i{number:02}"


def half_of(external: str) -> int:
    return int(external[1:]) % 2


def seen_by_user(events: Iterable[Event]) -> dict[str, set[str]]:
    seen: dict[str, set[str]] = {}
    for event in events:
        seen.setdefault(event.user, set()).add(event.item)
    return seen


def unseen_item(user: int) -> str:
    """The first item of a user's own half that the checkerboard leaves to be recommended."""
    own_half = map(item_id, range(user % 2, N_ITEMS, 2))
    return min(set(own_half) - seen_by_user(checkerboard())[user_id(user)])


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_events(path: Path, events: Iterable[Event]) -> None:
    write_csv(path, Event._fields, events)


@dataclass(frozen=True)
class Workspace:
    """A folder with settings, inputs and a root; commands run in this process and share its Spark session."""

    spark: SparkSession
    folder: Path
    sets: Mapping[str, str] = field(default_factory=dict)
    is_described: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sections = SETTINGS + (DESCRIBED if self.is_described else "")
        self.settings.write_text(sections.format(folder=self.folder))

    @property
    def settings(self) -> Path:
        return self.folder / "settings.toml"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def copy(self, folder: Path) -> Workspace:
        """The same inputs and runs elsewhere."""
        shutil.copytree(self.folder, folder)
        return replace(self, folder=folder)

    def arguments(self, sets: Mapping[str, str] | None = None) -> list[str]:
        chosen = {**self.sets, **(sets or {})}
        return [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]

    def cli(self, command: str, *arguments: str, sets: Mapping[str, str] | None = None) -> Outcome:
        """Run a command with these settings."""
        return run_cli(self.spark, command, "--settings", str(self.settings), *arguments, *self.arguments(sets))

    def night(self, day: str, *arguments: str, sets: Mapping[str, str] | None = None) -> str:
        """Run a whole night, which must succeed; give its run id."""
        outcome = self.cli("run", "--run-date", day, *arguments, sets=sets)
        assert outcome.code == 0, outcome.out + outcome.err
        return self.newest(day)

    def newest(self, day: str) -> str:
        """The run of a date that was started last."""
        records = [json.loads(path.read_text()) for path in self.runs(day)]
        return str(max(records, key=lambda record: record["created_at"])["run_id"])

    def runs(self, day: str = "*") -> list[Path]:
        """The records of the runs started."""
        return sorted(self.root.glob(f"runs/run_date={day}/run_id=*/_RUN.json"))

    def current(self) -> str | None:
        """The run that readers see."""
        pointer = self.root / "_CURRENT"
        return json.loads(pointer.read_text())["run_id"] if pointer.exists() else None

    def run_folder(self, run_id: str | None = None) -> Path:
        (folder,) = self.root.glob(f"runs/run_date=*/run_id={run_id or self.current()}")
        return folder

    def manifest(self, run_id: str | None = None) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run_folder(run_id) / "_MANIFEST.json").read_text())
        return content

    def facts(self, step: str, run_id: str | None = None) -> dict[str, Any]:
        """What a finished step recorded."""
        record: dict[str, Any] = json.loads((self.run_folder(run_id) / "_steps" / f"{step}.json").read_text())
        return record

    def table(self, name: str, run_id: str | None = None) -> pa.Table:
        """A table as any reader of Parquet sees it."""
        return pq.read_table(self.run_folder(run_id) / name, partitioning=None)

    def rows(self, name: str, run_id: str | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table(name, run_id).to_pylist(maps_as_pydicts="strict")
        return rows

    def lists(self, run_id: str | None = None) -> dict[str, List]:
        return {
            row["user_id"]: List(row["item_ids"], row["scores"], row["tier"])
            for row in self.rows("recommendations", run_id)
        }

    def positions(self, name: str, run_id: str | None = None) -> dict[str, int]:
        """External id -> position, of `user` or `item`."""
        return {row[f"{name}_id"]: row[f"{name}_idx"] for row in self.rows(f"{name}s", run_id)}

    def digest(self, name: str, run_id: str | None = None) -> str:
        """SHA-256 of a table's rows, in whatever order they lie."""
        return digest_of(self.rows(name, run_id))

    def arrays(self, folder: str, run_id: str | None = None) -> dict[str, NDArray[Any]]:
        """The arrays of a stored model by name."""
        return {path.stem: np.load(path) for path in (self.run_folder(run_id) / folder).glob("*.npy")}


def digest_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of rows without regard to their order; floats keep all their bits."""
    texts = sorted(json.dumps(dict(row), sort_keys=True, default=str) for row in rows)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def run_cli(spark: SparkSession, *arguments: str) -> Outcome:
    """Run a command in this process; the shared session gets its settings back."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(arguments)
    for key in ("spark.sql.shuffle.partitions", "spark.sql.session.timeZone"):
        spark.conf.set(key, SPARK_CONF[key])
    return Outcome(code, out.getvalue(), err.getvalue())
