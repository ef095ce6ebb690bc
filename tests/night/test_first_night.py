"""The whole night on a catalogue with a known answer."""

from __future__ import annotations

import datetime
import hashlib
import math
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import nightly
from recsys_spark.night import WRITERS
from recsys_spark.tables import TABLES
from tests.night.catalogue import (
    FIRST_DAY,
    N_ITEMS,
    N_USERS,
    TOP_K,
    Workspace,
    checkerboard,
    half_of,
    item_id,
    seen_by_user,
    user_id,
)
from tests.night.conftest import LATER, REJECTED, UNSEEN_ITEM, UNSEEN_USER, TwoNights
from tests.night.oracles import SPLITS, brute_force_metrics, metrics_of_run, splits_as_matrices


def test_every_list_is_the_rest_of_the_users_own_half(nights: TwoNights) -> None:
    lists, seen = nights.workspace.lists(nights.first), seen_by_user(checkerboard())
    for user in range(N_USERS):
        own_half = {item_id(item) for item in range(user % 2, N_ITEMS, 2)}
        assert set(lists[user_id(user)].item_ids) == own_half - seen[user_id(user)], user
        assert len(lists[user_id(user)].item_ids) == TOP_K
        assert lists[user_id(user)].tier == "embedding"


def test_scores_fall_and_every_user_has_one_list(nights: TwoNights) -> None:
    rows = nights.workspace.rows("recommendations", nights.first)
    assert sorted(row["user_id"] for row in rows) == sorted([*map(user_id, range(N_USERS)), UNSEEN_USER])
    for row in rows:
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert len(row["scores"]) == len(row["item_ids"])


def test_a_user_without_events_gets_what_is_popular(nights: TwoNights) -> None:
    counts: dict[str, int] = {}
    for event in checkerboard():
        counts[event.item] = counts.get(event.item, 0) + 1
    positions = nights.workspace.positions("item", nights.first)
    by_count = sorted(counts, key=lambda item: (-counts[item], positions[item]))
    found = nights.workspace.lists(nights.first)[UNSEEN_USER]
    assert found.item_ids == by_count[:TOP_K]
    assert found.tier == "popularity"
    largest = math.log1p(max(counts.values()))
    assert found.scores == pytest.approx([math.log1p(counts[item]) / largest for item in found.item_ids])


def test_described_users_and_items_are_indexed_before_their_first_event(nights: TwoNights) -> None:
    workspace = nights.workspace
    users, items = workspace.positions("user", nights.first), workspace.positions("item", nights.first)
    assert sorted(users) == sorted([*map(user_id, range(N_USERS)), UNSEEN_USER])
    assert sorted(items) == sorted([*map(item_id, range(N_ITEMS)), UNSEEN_ITEM])
    assert sorted(users.values()) == list(range(N_USERS + 1))
    assert sorted(items.values()) == list(range(N_ITEMS + 1))
    titles = {row["item_id"]: row["attributes"] for row in workspace.rows("items", nights.first)}
    assert titles[UNSEEN_ITEM] == {"title": f"Title of {UNSEEN_ITEM}"}


def test_rows_in_are_accepted_or_quarantined(nights: TwoNights) -> None:
    facts = nights.workspace.facts("ingest", nights.first)["details"]
    good = len(checkerboard())
    assert (facts["input"], facts["accepted"], facts["later"], facts["quarantined"]) == (
        good + len(REJECTED) + len(LATER),
        good + len(LATER),
        len(LATER),
        len(REJECTED),
    )
    assert facts["reasons"] == {"events": {"rating_out_of_range": 1, "timestamp_unparseable": 1, "user_id_missing": 1}}
    reasons = sorted(row["reasons"] for row in nights.workspace.rows("quarantine", nights.first))
    assert reasons == [["rating_out_of_range"], ["timestamp_unparseable"], ["user_id_missing"]]


def test_ratings_are_scaled_and_the_last_two_by_time_are_held_out(nights: TwoNights) -> None:
    rows = {(row["user"], row["item"]): row for row in _interactions(nights.workspace, nights.first)}
    events = checkerboard()
    assert rows.keys() == {(event.user, event.item) for event in events}
    newest: dict[str, list[str]] = {}
    for event in sorted(events, key=lambda event: event.at):
        row = rows[event.user, event.item]
        assert row["rating"] == pytest.approx(0.2 + 0.8 * (float(event.stars) - 1) / 4)
        assert row["last_at"] == datetime.datetime.fromisoformat(event.at).replace(tzinfo=datetime.UTC)
        newest.setdefault(event.user, []).append(event.item)
    for user, items in newest.items():
        assert [rows[user, item]["split"] for item in items] == ["train"] * 3 + ["validation", "test"]


def test_the_selection_fit_never_sees_the_hold_out(nights: TwoNights) -> None:
    pairs = {split: set[tuple[int, int]]() for split in SPLITS}
    for row in nights.workspace.rows("interactions", nights.first):
        pairs[row["split"]].add((row["user_idx"], row["item_idx"]))
    selection, final = nights.fits
    assert _pairs_of(selection["pairs"]) == pairs["train"]
    assert _pairs_of(selection["validation"]) == pairs["validation"]
    assert _pairs_of(final["pairs"]) == pairs["train"] | pairs["validation"] | pairs["test"]
    assert final["validation"] is None
    assert all(pairs.values())


@pytest.mark.parametrize("model", ["embedding", "popularity"])
def test_metrics_equal_a_brute_force(nights: TwoNights, model: str) -> None:
    workspace, arrays = nights.workspace, nights.workspace.arrays("selection", nights.first)
    scores = arrays["user_vectors"].astype(np.float64) @ arrays["item_vectors"].T + arrays["item_biases"]
    scores[:, ~arrays["is_trained_item"]] = -np.inf
    if model == "popularity":
        popularity = np.where(arrays["popularity"] > 0, arrays["popularity"], -np.inf)
        scores = np.tile(popularity, (len(scores), 1))
    interactions = splits_as_matrices(workspace.rows("interactions", nights.first), scores.shape)
    found = metrics_of_run(workspace, model, nights.first)
    assert found == pytest.approx(brute_force_metrics(scores, interactions, ks=(1, 3)))
    assert found["ndcg@3"] > 0, "a test item that was masked would never be found"
    assert {row["users"] for row in workspace.rows("metrics", nights.first)} == {N_USERS}


def test_the_model_beats_popularity(nights: TwoNights) -> None:
    ours, popular = (metrics_of_run(nights.workspace, model, nights.first) for model in ("embedding", "popularity"))
    assert ours["recall@3"] > 2 * popular["recall@3"]


def test_the_manifest_describes_every_file(nights: TwoNights) -> None:
    manifest, folder = nights.workspace.manifest(nights.first), nights.workspace.run_folder(nights.first)
    assert (manifest["run_id"], manifest["run_date"], manifest["parent"]) == (nights.first, FIRST_DAY, None)
    assert list(manifest["steps"]) == [step.name for step in nightly.STEPS]
    # Nothing is said of what items are like, there are no rules, and lists are not of neighbors.
    others = {table.name for table in TABLES if WRITERS[table.name] == "embed_content"}
    others |= {"neighbor_blocks", "selection_neighbor_blocks", "blend_candidates"}
    others |= {"item_rules", "user_rules", "requested_users"}
    assert set(manifest["tables"]) == {table.name for table in TABLES} - others
    assert set(manifest["folders"]) == {"model", "selection", "learning_curve", "trend", "audit"}
    assert manifest["input"]["input"] == len(checkerboard()) + len(REJECTED) + len(LATER)
    assert manifest["seeds"] == {"seed": 3}
    assert manifest["settings"]["model"]["embedding_dim"] == 4
    rows = [row for row in manifest["metrics"]["metrics"] if (row["model"], row["metric"]) == ("embedding", "ndcg")]
    assert [row["k"] for row in rows] == [1, 3]
    for name, entry in manifest["tables"].items():
        assert entry["rows"] == nights.workspace.table(name, nights.first).num_rows, name
        assert {file["path"] for file in entry["files"]} == {
            f"{name}/{path.name}" for path in (folder / name).glob("*.parquet")
        }
    for entry in [*manifest["tables"].values(), *manifest["folders"].values()]:
        for file in entry["files"]:
            content = (folder / file["path"]).read_bytes()
            assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_files_carry_the_declared_columns(nights: TwoNights) -> None:
    for table in TABLES:
        for path in (nights.workspace.run_folder(nights.first) / table.name).glob("*.parquet"):
            assert pq.read_schema(path).names == table.schema.names


def test_similar_entities_are_the_nearest_embeddings(nights: TwoNights) -> None:
    workspace, arrays = nights.workspace, nights.workspace.arrays("model", nights.first)
    for name in ("user", "item"):
        ids = {position: external for external, position in workspace.positions(name, nights.first).items()}
        trained = np.flatnonzero(arrays[f"is_trained_{name}"])
        vectors = arrays[f"{name}_vectors"].astype(np.float64)
        rows = {row[f"{name}_id"]: row for row in workspace.rows(f"similar_{name}s", nights.first)}
        assert rows.keys() == {ids[position] for position in trained}
        for position in trained:
            distances = np.sqrt(np.square(vectors[trained] - vectors[position]).sum(axis=1))
            ranked = sorted((d, other) for d, other in zip(distances, trained, strict=True) if other != position)[:10]
            row = rows[ids[position]]
            assert row[f"similar_{name}_ids"] == [ids[other] for _, other in ranked]
            assert row["distances"] == pytest.approx([distance for distance, _ in ranked], rel=1e-6)
            nearest = row[f"similar_{name}_ids"][:TOP_K]
            assert {half_of(other) for other in nearest} == {half_of(ids[position])}


def test_the_night_prints_what_it_did(nights: TwoNights) -> None:
    printed = nights.printed
    for step in nightly.STEPS:
        assert f"\n{step.name} " in printed
    for text in (
        f"run {nights.first} for {FIRST_DAY}",
        "now current",
        "156 in, 153 accepted, 3 quarantined",
        "3 accepted rows are after the run date and wait for a later run",
        "events: rating_out_of_range 1, timestamp_unparseable 1, user_id_missing 1",
        "31 (31 new)",
        "17 (17 new)",
        "embedding 30, popularity 1",
        "Title of i",
        str(nights.workspace.run_folder(nights.first) / "recommendations"),
    ):
        assert text in printed, text
    assert "warm start" not in printed


def _interactions(workspace: Workspace, run_id: str) -> list[dict[str, Any]]:
    users = {position: user for user, position in workspace.positions("user", run_id).items()}
    items = {position: item for item, position in workspace.positions("item", run_id).items()}
    return [
        {**row, "user": users[row["user_idx"]], "item": items[row["item_idx"]]}
        for row in workspace.rows("interactions", run_id)
    ]


def _pairs_of(pairs: Any) -> set[tuple[int, int]]:
    return set(zip(pairs.user_idx.tolist(), pairs.item_idx.tolist(), strict=True))


def test_the_learning_curve_is_a_picture(nights: TwoNights) -> None:
    picture = nights.workspace.run_folder(nights.first) / "learning_curve" / "learning_curve.png"
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 5_000
