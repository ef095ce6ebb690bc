"""How recommendations lie in files, and the reader of them: applications may copy this file. No Spark here.

<path>/_CURRENT                    JSON: run_id, run_date, users, full, delta (null, or base_run_id, path, ...)
                                   `changed_at` once a user was taken out of the files
<path>/full/run_id=R/              all lists of a run; `_DONE.json` is there once they are complete
<path>/delta/run_id=R/base=B/      what turns the lists of run B into those of run R; `_DELTA.json` names both

The pointer is replaced in one step once all files are there. Files change only to take out a user who is forgotten.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from recsys_spark.sinks.contract import Recommendations, Served

POINTER = "_CURRENT"
DONE, DELTA = "_DONE.json", "_DELTA.json"
Lists = dict[str, Recommendations]


class GapError(Exception):
    """A delta builds on another run than the one it was to be applied to."""


class RecommendationReader:
    """Answers from the served run of a local folder, all in memory; reads it anew when the pointer says otherwise."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._pointer: dict[str, Any] | None = None
        self._lists: Lists = {}

    def run(self) -> Served | None:
        """What is served; None before the first export."""
        pointer = self._refresh()
        return None if pointer is None else Served(pointer["run_id"], date.fromisoformat(pointer["run_date"]))

    def recommend(self, user_id: str, k: int | None = None) -> Recommendations | None:
        """The first `k` of a user's list, all of it when None; None for a user without one."""
        self._refresh()
        found = self._lists.get(user_id)
        return None if found is None else found[:k]

    def _refresh(self) -> dict[str, Any] | None:
        pointer = read_pointer(self._folder)
        if pointer is not None and pointer != self._pointer:
            self._lists = read_lists(self._folder / pointer["full"])
            self._pointer = pointer
        return pointer


def read_pointer(folder: Path) -> dict[str, Any] | None:
    """What is served; None before the first export."""
    try:
        pointer: dict[str, Any] = json.loads((folder / POINTER).read_bytes())
    except FileNotFoundError:
        return None
    return pointer


def read_lists(folder: Path) -> Lists:
    """The lists of all users in a folder of JSON Lines or CSV, packed or not."""
    lists: Lists = {}
    for row in _rows(folder):
        _put(lists, row)
    return lists


def apply_delta(lists: Lists, run_id: str, folder: Path) -> tuple[Lists, str]:
    """The lists of the delta's run, from those of `run_id`, and the id of that run.

    Raises:
        GapError: when the delta builds on another run: take the full lists, or the deltas between.
    """
    header = json.loads((folder / DELTA).read_bytes())
    if header["base_run_id"] != run_id:
        raise GapError(f"{folder} builds on run {header['base_run_id']}, not on {run_id}: take the full lists")
    rows = list(_rows(folder))
    changed = {row["user_id"] for row in rows}
    applied = {user_id: found for user_id, found in lists.items() if user_id not in changed}
    for row in rows:
        if row["op"] == "upsert":
            _put(applied, row)
    return applied, header["run_id"]


def _put(lists: Lists, row: dict[str, Any]) -> None:
    """A line of JSON is a list, a line of CSV one place of it; an empty list has a line with rank 0."""
    user_id = row["user_id"]
    if "item_ids" in row:
        lists[user_id] = list(zip(row["item_ids"], map(float, row["scores"]), strict=True))
        return
    found = lists.setdefault(user_id, [])
    if row["rank"] != "0":
        found.append((row["item_id"], float(row["score"])))


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        with _open(path) as file:
            if ".csv" in path.suffixes:
                yield from csv.DictReader(file)
            else:
                yield from map(json.loads, file)


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
