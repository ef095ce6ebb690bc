from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from recsys_spark.blockwise import similar
from recsys_spark.blockwise.files import MappedStrings
from recsys_spark.blockwise.items import distribute_ids
from recsys_spark.blockwise.similar import distribute_entities, find_similar
from recsys_spark.tables import SIMILAR_ITEMS

N_ITEMS = 11
SMALL, LARGE = 60, 1 << 30
VECTORS = np.random.default_rng(4).standard_normal((N_ITEMS, 3)).astype(np.float32)
VECTORS[7] = VECTORS[3] = VECTORS[5]  # at equal distance from all others
VECTORS[9] = 1e-4 + VECTORS[8]


@pytest.fixture(scope="module")
def ids(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> MappedStrings:
    """Ids of an index that lies in no order."""
    folder = tmp_path_factory.mktemp("items")
    order = np.random.default_rng(1).permutation(N_ITEMS).tolist()
    index = pa.table({"item_idx": pa.array(order, pa.int32()), "item_id": [f"i{item}" for item in order]})
    pq.write_table(index, folder / "part-0.parquet")
    return distribute_ids(spark, folder, "item", folder / "ids")


@pytest.mark.parametrize("shard_bytes", [SMALL, LARGE])
@pytest.mark.parametrize("k", [4, 50])
def test_similar_items_equal_a_brute_force(
    spark: SparkSession, ids: MappedStrings, tmp_path: Path, k: int, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_BLOCK_ROWS", 2)
    entities = distribute_entities(spark, VECTORS, ids, tmp_path / "vectors", shard_bytes)
    assert len(entities.shards) == (1 if shard_bytes == LARGE else 4)
    found = find_similar(spark, entities, k, SIMILAR_ITEMS).frame()
    assert found.columns == SIMILAR_ITEMS.schema.names
    rows = {row["item_id"]: row for row in found.collect()}
    assert len(rows) == N_ITEMS == found.count()
    exact = VECTORS.astype(np.float64)
    for item in range(N_ITEMS):
        distances = np.sqrt(np.square(exact - exact[item]).sum(axis=1))
        ranked = [other for other in np.lexsort((np.arange(N_ITEMS), distances)) if other != item][:k]
        assert rows[f"i{item}"]["similar_item_ids"] == [f"i{other}" for other in ranked]
        assert rows[f"i{item}"]["distances"] == pytest.approx(distances[ranked].tolist(), rel=1e-12)


@pytest.mark.parametrize("shard_bytes", [40 * 16, LARGE])
def test_a_crowd_that_float32_cannot_tell_apart_is_ordered_exactly(
    spark: SparkSession, tmp_path: Path, shard_bytes: int
) -> None:
    """Far from the origin, and so near to each other that their scores are equal for most."""
    random = np.random.default_rng(0)
    crowd = (1000.0 + 1e-4 * random.integers(-99, 100, (90, 3))).astype(np.float32)
    crowd[10] = crowd[70]
    index = pa.table({"item_idx": pa.array(range(90), pa.int32()), "item_id": [f"i{item}" for item in range(90)]})
    (tmp_path / "index").mkdir()
    pq.write_table(index, tmp_path / "index" / "part-0.parquet")
    ids = distribute_ids(spark, tmp_path / "index", "item", tmp_path / "ids")
    entities = distribute_entities(spark, crowd, ids, tmp_path / "vectors", shard_bytes)
    rows = {row["item_id"]: row for row in find_similar(spark, entities, 5, SIMILAR_ITEMS).frame().collect()}
    exact = crowd.astype(np.float64)
    for item in range(90):
        distances = np.sqrt(np.square(exact - exact[item]).sum(axis=1))
        ranked = [other for other in np.lexsort((np.arange(90), distances)) if other != item][:5]
        assert rows[f"i{item}"]["similar_item_ids"] == [f"i{other}" for other in ranked]
        assert rows[f"i{item}"]["distances"] == distances[ranked].tolist()


def test_a_single_item_is_similar_to_nothing(spark: SparkSession, ids: MappedStrings, tmp_path: Path) -> None:
    entities = distribute_entities(spark, VECTORS[:1], ids, tmp_path / "vectors", LARGE)
    (row,) = find_similar(spark, entities, 3, SIMILAR_ITEMS).frame().collect()
    assert (row["item_id"], row["similar_item_ids"], row["distances"]) == ("i0", [], [])


def test_nothing_embedded_gives_no_rows(spark: SparkSession, ids: MappedStrings, tmp_path: Path) -> None:
    entities = distribute_entities(spark, VECTORS[:0], ids, tmp_path / "vectors", LARGE)
    assert find_similar(spark, entities, 3, SIMILAR_ITEMS).frame().collect() == []
