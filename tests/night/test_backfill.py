"""A backfill of an older date, the commands that look at what is published, and the way back."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from tests.night.catalogue import (
    FIRST_DAY,
    N_USERS,
    SECOND_DAY,
    Event,
    Workspace,
    checkerboard,
    item_id,
    user_id,
    write_csv,
    write_events,
)
from tests.night.conftest import TwoNights

pytestmark = pytest.mark.slow

OLD_DAY = "2024-03-08"
FEW = [Event("u-few", item_id(item), "5", f"2024-03-0{item} 10:00:00") for item in (1, 3)]
RARE = [Event(user_id(0), "i-rare", "5", "2024-03-01 10:00:00")]
MSE = {
    "events.incremental": "false",
    "model.loss": "mse",
    "model.epochs": "60",
    "model.l2": "0.001",
    "model.min_user_interactions": "4",
    "model.min_item_interactions": "2",
    "evaluate.auc_samples": "20",
}


@dataclass(frozen=True)
class Backfill:
    """A root with two nights, and an older one that was made after them; tests work on copies of it."""

    workspace: Workspace
    run_id: str
    printed: str


@pytest.fixture(scope="module")
def backfill(nights: TwoNights, tmp_path_factory: pytest.TempPathFactory) -> Backfill:
    """A rating model of users who have said what they dislike; one user and one item have too few ratings.

    The dislikes come first: the newest pairs are held out, and a ranking is not measured by what users dislike.
    """
    workspace = nights.workspace.copy(tmp_path_factory.mktemp("backfill") / "copy")
    dislikes = [
        Event(user_id(user), item_id((user + 1 + 2 * place) % 16), "1", f"2024-02-2{place} 10:00:00")
        for user in range(N_USERS)
        for place in range(3)
    ]
    write_events(workspace.folder / "events.csv", [*checkerboard(), *dislikes, *FEW, *RARE])
    outcome = workspace.cli("run", "--run-date", OLD_DAY, sets=MSE)
    assert outcome.code == 0, outcome.out + outcome.err
    return Backfill(workspace, workspace.newest(OLD_DAY), outcome.out)


@pytest.fixture
def mended(backfill: Backfill, tmp_path: Path) -> Workspace:
    """A copy of the root with readers pointed at the older night."""
    workspace = backfill.workspace.copy(tmp_path / "copy")
    (workspace.root / "_CURRENT").unlink()
    return workspace


def test_a_backfill_is_published_without_moving_readers(backfill: Backfill, nights: TwoNights) -> None:
    assert backfill.workspace.current() == nights.second
    assert "published; a newer run date stays current" in backfill.printed
    assert backfill.workspace.manifest(backfill.run_id)["parent"] is None


def test_users_below_the_least_interactions_get_the_popularity_tier(backfill: Backfill) -> None:
    lists = backfill.workspace.lists(backfill.run_id)
    assert lists["u-few"].tier == "popularity"
    assert [found.tier for found in lists.values()].count("embedding") == N_USERS
    assert not any("i-rare" in found.item_ids for found in lists.values())
    assert not {event.item for event in FEW} & set(lists["u-few"].item_ids)


def test_errors_of_predicted_ratings_equal_a_brute_force(backfill: Backfill) -> None:
    workspace, run_id = backfill.workspace, backfill.run_id
    arrays = workspace.arrays("selection", run_id)
    offset = json.loads((workspace.run_folder(run_id) / "selection" / "manifest.json").read_text())["offset"]
    scores = arrays["user_vectors"].astype(np.float64) @ arrays["item_vectors"].T + offset
    scores += arrays["user_biases"][:, None] + arrays["item_biases"]
    errors = []
    for row in workspace.rows("interactions", run_id):
        user, item = row["user_idx"], row["item_idx"]
        if row["split"] == "test" and arrays["is_trained_user"][user] and arrays["is_trained_item"][item]:
            share = (np.clip(scores[user, item], 0.2, 1.0) - 0.2) / 0.8
            errors.append(1 + 4 * share - row["value"])
    rows = {row["metric"]: row for row in workspace.rows("metrics", run_id) if row["k"] == 0}
    assert rows.keys() == {"rmse", "mae", "gauc"}
    assert {row["users"] for row in rows.values()} == {len(errors)}
    assert len(errors) >= N_USERS - 2
    assert rows["rmse"]["value"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-5)
    assert rows["mae"]["value"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    for row in rows.values():
        assert row["low"] <= row["value"] <= row["high"]
    assert rows["gauc"]["value"] > 0.6, "the newest are items of the user's own half"
    assert f"rmse {rows['rmse']['value']:.4f}" in backfill.printed


def test_readers_move_when_asked_and_go_back(backfill: Backfill, nights: TwoNights, tmp_path: Path) -> None:
    workspace = backfill.workspace.copy(tmp_path / "copy")
    sets = {**MSE, "events.path": str(backfill.workspace.folder / "events.csv")} | _entities(backfill)
    asked = workspace.cli("run", "--resume", backfill.run_id, "--make-current", sets=sets)
    assert asked.code == 0, asked.err
    assert "now current" in asked.out
    assert workspace.current() == backfill.run_id

    back = workspace.cli("rollback", nights.second)
    assert (back.code, back.out.strip()) == (0, f"readers now see run {nights.second} of {SECOND_DAY}")
    assert workspace.current() == nights.second
    assert workspace.cli("rollback").out.strip() == f"readers now see run {nights.first} of {FIRST_DAY}"
    assert workspace.cli("rollback").out.strip() == f"readers now see run {backfill.run_id} of {OLD_DAY}"
    nothing = workspace.cli("rollback")
    assert nothing.code == 1
    assert "there is nothing to go back to" in nothing.err
    unknown = workspace.cli("rollback", "nothing")
    assert unknown.code == 2
    assert "there is no run nothing" in unknown.err
    assert workspace.current() == backfill.run_id


def test_list_runs_tells_all_of_each_run(backfill: Backfill, nights: TwoNights) -> None:
    outcome = backfill.workspace.cli("list-runs")
    assert outcome.code == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "202" in line]
    assert [line[:3] + line[5:] for line in lines] == [
        [SECOND_DAY, nights.second, "current", nights.first],
        [FIRST_DAY, nights.first, "published", ""],
        [OLD_DAY, backfill.run_id, "published", ""],
    ]


def test_show_prints_a_list_with_titles(nights: TwoNights) -> None:
    outcome = nights.workspace.cli("show", "--user", "u07")
    assert outcome.code == 0, outcome.err
    found = nights.workspace.lists(nights.second)["u07"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outcome.out.splitlines() if "│" in line]
    assert rows == [
        [str(rank), item, f"{score:.4f}", f"Title of {item}" if item != "i-new" else ""]
        for rank, (item, score) in enumerate(zip(found.item_ids, found.scores, strict=True), start=1)
    ]
    assert f"u07 (embedding), {SECOND_DAY}" in outcome.out


def test_show_names_a_user_it_does_not_know(nights: TwoNights) -> None:
    outcome = nights.workspace.cli("show", "--user", "nobody")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"error: user 'nobody' is not in run {nights.second} of {SECOND_DAY}\n"


def test_nothing_published_yet_is_one_line(spark: SparkSession, tmp_path: Path) -> None:
    workspace = Workspace(spark, tmp_path)
    pairs = tmp_path / "pairs.csv"
    write_csv(pairs, ["user_id", "item_id"], [])
    for command, *arguments in (("show", "--user", "a"), ("predict", "--pairs", str(pairs)), ("rollback",)):
        outcome = workspace.cli(command, *arguments)
        assert outcome.code == 1
        (line,) = outcome.err.splitlines()
        assert "published" in line
    assert workspace.cli("list-runs").code == 0
    assert not workspace.root.exists()


def test_predicted_ratings_lie_within_the_range_and_tell_likes_from_dislikes(
    backfill: Backfill, mended: Workspace, tmp_path: Path
) -> None:
    _point_to(mended, backfill)
    known = [(user_id(user), item_id(item)) for user in range(N_USERS) for item in range(16)]
    strange = [("nobody", "i01"), ("u01", "nothing"), ("nobody", "nothing"), ("u-few", "i01"), ("u01", "i-rare")]
    write_csv(tmp_path / "pairs.csv", ["item_id", "user_id", "more"], [(i, u, "x") for u, i in [*known, *strange]])
    outcome = mended.cli("predict", "--pairs", str(tmp_path / "pairs.csv"), sets=MSE)
    assert outcome.code == 0, outcome.err
    rows = {(row["user_id"], row["item_id"]): row for row in csv.DictReader(io.StringIO(outcome.out))}
    assert [rows[pair]["status"] for pair in strange] == [
        "unknown_user", "unknown_item", "unknown_user", "untrained_user", "untrained_item",
    ]  # fmt: skip
    assert [rows[pair]["score"] + rows[pair]["rating"] for pair in strange] == [""] * len(strange)
    ratings = {pair: float(rows[pair]["rating"]) for pair in known}
    assert {rows[pair]["status"] for pair in known} == {"predicted"}
    assert all(1 <= rating <= 5 for rating in ratings.values())
    for user in range(N_USERS):
        own, other = (
            np.mean([ratings[user_id(user), item_id(item)] for item in range(16) if (item % 2 == user % 2) is is_own])
            for is_own in (True, False)
        )
        assert own > other + 1, user_id(user)
    assert len(rows) == len(known) + len(strange)


def test_predictions_equal_the_stored_arrays(backfill: Backfill, mended: Workspace, tmp_path: Path) -> None:
    _point_to(mended, backfill)
    arrays = mended.arrays("model")
    offset = json.loads((mended.run_folder() / "model" / "manifest.json").read_text())["offset"]
    users, items = mended.positions("user"), mended.positions("item")
    pairs = [("u03", "i01"), ("u03", "i01"), ("u11", "i02"), ("u00", "i15")]
    frame = mended.spark.createDataFrame(pairs, "user_id string, item_id string")
    frame.write.parquet(str(tmp_path / "pairs.parquet"))
    output = tmp_path / "out"
    arguments = ["--pairs", str(tmp_path / "pairs.parquet"), "--output", str(output)]
    assert mended.cli("predict", *arguments, sets=MSE).code == 0
    rows = mended.spark.read.parquet(str(output)).collect()
    assert sorted((row["user_id"], row["item_id"]) for row in rows) == sorted(pairs)
    for row in rows:
        user, item = users[row["user_id"]], items[row["item_id"]]
        score = offset + arrays["user_biases"][user] + arrays["item_biases"][item]
        score += float(arrays["user_vectors"][user] @ arrays["item_vectors"][item])
        assert row["score"] == pytest.approx(score, abs=1e-5)
        assert row["rating"] == pytest.approx(1 + 4 * (min(max(score, 0.2), 1.0) - 0.2) / 0.8, abs=1e-4)
    again = mended.cli("predict", *arguments, sets=MSE)
    assert again.code == 2
    (line,) = again.err.splitlines()
    assert line.startswith(f"error: --output {str(output)!r} cannot be written")


def test_wrong_pairs_are_named(nights: TwoNights, tmp_path: Path) -> None:
    write_csv(tmp_path / "pairs.csv", ["user", "item_id"], [("u01", "i01")])
    for name, complaint in (
        ("pairs.csv", "has no column user_id; it has user, item_id"),
        ("none.csv", "cannot be read"),
    ):
        outcome = nights.workspace.cli("predict", "--pairs", str(tmp_path / name))
        assert outcome.code == 2
        (line,) = outcome.err.splitlines()
        assert name in line
        assert complaint in line


def _point_to(workspace: Workspace, backfill: Backfill) -> None:
    sets = {**MSE, "events.path": str(backfill.workspace.folder / "events.csv")} | _entities(backfill)
    outcome = workspace.cli("publish", "--run-id", backfill.run_id, sets=sets)
    assert outcome.code == 0, outcome.err
    assert workspace.current() == backfill.run_id


def _entities(backfill: Backfill) -> dict[str, str]:
    """A run goes on only with the settings it was started with: those of the folder it was copied from."""
    return {f"{name}.path": str(backfill.workspace.folder / f"{name}.csv") for name in ("users", "items")}
