"""Equal inputs give equal lists, however they are partitioned and whatever the blocks and shards are."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark import scoring
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.lists import recommend
from recsys_spark.blockwise.neighbors import pack_neighbors
from recsys_spark.blockwise.plan import MovedBlocks
from recsys_spark.config import load_settings
from recsys_spark.list_scorers import list_scorer
from recsys_spark.storage.runs import open_run
from recsys_spark.tables import ITEMS, NEIGHBOR_BLOCKS, USER_BLOCKS, USER_NEIGHBORS
from tests.night.catalogue import (
    FIRST_DAY,
    N_USERS,
    TOP_K,
    Workspace,
    checkerboard,
    digest_of,
    half_of,
    seen_by_user,
    user_id,
    write_events,
)
from tests.night.conftest import INCREMENTAL, LATER, REJECTED, TwoNights, write_inputs
from tests.night.oracles import brute_force_metrics, metrics_of_run, splits_as_matrices

pytestmark = pytest.mark.slow

SHARD_BYTES = 60


@dataclass(frozen=True)
class Variant:
    """The first night again, scored by neighbors, in other partitions, blocks and shards."""

    workspace: Workspace
    run_id: str
    shards: dict[str, int]


@pytest.fixture(scope="module")
def variant(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    workspace = Workspace(spark, tmp_path_factory.mktemp("variant"), INCREMENTAL, is_described=True)
    write_inputs(workspace)
    rows = [*checkerboard(), *REJECTED, *LATER]
    random.Random(5).shuffle(rows)
    for part in range(4):
        write_events(workspace.folder / "parts" / f"{part}.csv", rows[part::4])
    sets = {
        "events.path": str(workspace.folder / "parts"),
        "spark.shuffle_partitions": "5",
        "matrix.block_users": "5",
        "recommend.model": "neighbors",
    }
    with pytest.MonkeyPatch.context() as patch:
        shards = _cut_small(patch)
        run_id = workspace.night(FIRST_DAY, sets=sets)
    return Variant(workspace, run_id, shards)


def test_the_variant_is_cut_into_many_shards(variant: Variant) -> None:
    # 16 popularities, 30 trained users of 4 dimensions and a norm, 7 blocks of 5 users with 5 entries, 16 items.
    expected = {
        "distribute_items": 2,
        "distribute_entities": 10,
        "distribute_user_rows": 7,
        "distribute_item_ranges": 14,
    }
    assert variant.shards == expected


@pytest.mark.parametrize(
    "table", ["users", "items", "interactions", "quarantine", "user_neighbors", "similar_users", "similar_items"]
)
def test_tables_are_equal(nights: TwoNights, variant: Variant, table: str) -> None:
    assert variant.workspace.digest(table) == nights.workspace.digest(table, nights.first)


def test_the_inputs_fingerprint_is_equal(nights: TwoNights, variant: Variant) -> None:
    facts = [workspace.facts("ingest", run_id) for workspace, run_id in _both(nights, variant)]
    assert facts[0]["details"]["fingerprint"] == facts[1]["details"]["fingerprint"]


@pytest.mark.parametrize("folder", ["model", "selection"])
def test_the_model_is_equal_bit_by_bit(nights: TwoNights, variant: Variant, folder: str) -> None:
    ours, theirs = (workspace.arrays(folder, run_id) for workspace, run_id in _both(nights, variant))
    assert ours.keys() == theirs.keys() != set()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("model", ["embedding", "neighbors"])
def test_lists_are_equal_with_other_blocks_and_shards(
    nights: TwoNights, variant: Variant, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each night published the lists of one model; the other model's lists are made from its stored tables."""
    if model == "embedding":
        _cut_small(monkeypatch)
        made = _lists(variant.workspace, variant.run_id, model, tmp_path)
        published = nights.workspace.digest("recommendations", nights.first)
    else:
        made = _lists(nights.workspace, nights.first, model, tmp_path)
        published = variant.workspace.digest("recommendations")
    assert made == published


def test_neighbor_metrics_equal_a_brute_force(variant: Variant) -> None:
    workspace = variant.workspace
    rows = workspace.rows("interactions")
    splits = splits_as_matrices(rows, (workspace.table("users").num_rows, workspace.table("items").num_rows))
    ratings = np.zeros(splits["train"].shape)
    for row in rows:
        ratings[row["user_idx"], row["item_idx"]] = row["rating"]
    counts = np.load(workspace.run_folder() / "selection" / "popularity.npy")
    scores = _neighbor_scores(np.where(splits["train"], ratings, 0.0), splits, counts)
    found = metrics_of_run(workspace, "neighbors")
    assert found == pytest.approx(brute_force_metrics(scores, splits, ks=(1, 3)))
    assert found["recall@3"] > 0


def test_neighbor_lists_come_from_neighbors_with_the_same_taste(variant: Variant) -> None:
    lists, seen = variant.workspace.lists(), seen_by_user(checkerboard())
    for user in map(user_id, range(N_USERS)):
        assert lists[user].tier == "neighbors"
        assert {half_of(item) for item in lists[user].item_ids} == {half_of(user)}
        assert not seen[user] & set(lists[user].item_ids)


def _neighbor_scores(
    train: NDArray[np.float64], splits: dict[str, NDArray[np.bool_]], popularity: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Means of the ratings of the 6 nearest users by the train split, with shrinkage 1; popularity where empty."""
    scores = np.full(train.shape, -np.inf)
    for user in range(len(train)):
        distances = np.sqrt(np.square(train - train[user]).sum(axis=1))
        others = [other for other in np.lexsort((np.arange(len(train)), distances)) if other != user][:6]
        weights = (1.0 / (1.0 + distances[others])).astype(np.float32).astype(np.float64)
        has = splits["train"][others]
        sums, totals = weights @ (train[others] * has), weights @ has
        found = np.where(totals > 0, (sums / (totals + 1.0)).astype(np.float32), -np.inf)
        is_known = splits["train"][user] | splits["validation"][user]
        is_empty = not (np.isfinite(found) & ~is_known).any()
        scores[user] = np.where(popularity > 0, popularity, -np.inf) if is_empty else found
    return scores


def _cut_small(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """Makes shards of a few rows; gives the largest number of shards that each kind was cut into."""
    most: dict[str, int] = {}
    patch.setattr(scoring, "shard_bytes", lambda _: SHARD_BYTES)
    for name in ("distribute_items", "distribute_entities", "distribute_user_rows", "distribute_item_ranges"):
        patch.setattr(scoring, name, _counting(name, most))
    return most


def _counting(name: str, most: dict[str, int]) -> object:
    distribute = getattr(scoring, name)

    def count(*arguments: object, **options: object) -> object:
        made = distribute(*arguments, **options)
        most[name] = max(most.get(name, 0), len(getattr(made, "shards", made)))
        return made

    return count


def _lists(workspace: Workspace, run_id: str, model: str, scratch: Path) -> str:
    storage = open_run(workspace.spark, str(workspace.root), run_id)
    storage.scratch = scratch
    settings = load_settings(workspace.settings, [f"recommend.model={model}"])
    with pytest.MonkeyPatch.context() as patch:
        if model == "neighbors" and not storage.exists(NEIGHBOR_BLOCKS):  # the run's lists are of another model
            blocks = storage.read(USER_BLOCKS)
            moved = MovedBlocks((blocks, pack_neighbors(blocks, storage.read(USER_NEIGHBORS))))
            patch.setattr(scoring, "blocks_of", lambda *_: moved)
        blocks, scorer = list_scorer(storage, settings, "model")
    item_ids = distribute_ids(storage.spark, storage.fetch(ITEMS, scratch), "item", scratch / "ids")
    lists = recommend(blocks, scorer, item_ids, TOP_K).frame().toArrow()
    return digest_of(lists.to_pylist(maps_as_pydicts="strict"))


def _both(nights: TwoNights, variant: Variant) -> tuple[tuple[Workspace, str], tuple[Workspace, str]]:
    return (nights.workspace, nights.first), (variant.workspace, variant.run_id)
