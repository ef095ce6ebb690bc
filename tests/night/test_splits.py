"""Nights that hold out what is later than one moment, new users or new items: nothing of it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.night.catalogue import FIRST_DAY, Workspace, checkerboard, write_events

pytestmark = pytest.mark.slow

QUICK = {"model.epochs": "3", "neighbors.enabled": "false", "similar.users": "false", "similar.items": "false"}


def pairs_of(workspace: Workspace, split: str) -> list[dict[str, Any]]:
    return [row for row in workspace.rows("interactions") if row["split"] == split]


@pytest.mark.parametrize("split", ["time", "users", "items"])
def test_what_is_held_out_is_not_learned_from(spark: SparkSession, tmp_path: Path, split: str) -> None:
    workspace = Workspace(spark, tmp_path, QUICK | {"evaluate.split": split, "evaluate.share": "0.2"})
    write_events(tmp_path / "events.csv", checkerboard())
    workspace.night(FIRST_DAY)
    train, validation, test = (pairs_of(workspace, name) for name in ("train", "validation", "test"))
    assert train
    assert test
    if split == "time":
        assert max(row["last_at"] for row in train) < min(row["last_at"] for row in validation)
        assert max(row["last_at"] for row in validation) < min(row["last_at"] for row in test)
    else:
        side = f"{split.removesuffix('s')}_idx"
        tested = {row[side] for row in test}
        assert not tested & {row[side] for row in [*train, *validation]}
        is_trained = workspace.arrays("selection")[f"is_trained_{split.removesuffix('s')}"]
        assert not any(is_trained[position] for position in tested)
        final = workspace.arrays("model")[f"is_trained_{split.removesuffix('s')}"]
        assert all(final[position] for position in tested)
    measured = {row["model"]: row for row in workspace.rows("metrics") if (row["metric"], row["k"]) == ("ndcg", 3)}
    assert measured["embedding"]["users"] == len({row["user_idx"] for row in test})
    if split == "users":  # of whom nothing is known: what is popular
        assert measured["embedding"]["value"] == measured["popularity"]["value"]
    if split == "items":  # nothing says what they are like, so no list holds one
        assert {row["value"] for row in measured.values()} == {0.0}
