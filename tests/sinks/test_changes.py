from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.sinks.changes import changed_lists, one_line_an_item

SCHEMA = "user_id string, item_ids array<string>, scores array<float>, tier string"
BEFORE = [
    ("same", ["a", "b"], [0.5, 0.25], "embedding"),
    ("order", ["a", "b"], [0.5, 0.25], "embedding"),
    ("scores", ["a", "b"], [0.5, 0.25], "embedding"),
    ("gone", ["a"], [0.5], "embedding"),
]
NOW = [
    ("same", ["a", "b"], [0.5, 0.25], "embedding"),
    ("order", ["b", "a"], [0.5, 0.25], "embedding"),
    ("scores", ["a", "b"], [0.5, 0.125], "embedding"),
    ("new", [], [], "popularity"),
]


def test_what_changed(spark: SparkSession) -> None:
    now, before = spark.createDataFrame(NOW, SCHEMA), spark.createDataFrame(BEFORE, SCHEMA)
    found = {tuple(row)[:3] if row.item_ids is None else (row.op, row.user_id, tuple(row.item_ids))
             for row in changed_lists(now, before).collect()}  # fmt: skip
    assert found == {
        ("upsert", "order", ("b", "a")),
        ("upsert", "scores", ("a", "b")),
        ("upsert", "new", ()),
        ("delete", "gone", None),
    }
    by_items = changed_lists(now, before, with_scores=False)
    assert {row.user_id for row in by_items.collect()} == {"order", "new", "gone"}


def test_lines_of_items(spark: SparkSession) -> None:
    lines = one_line_an_item(spark.createDataFrame(NOW[1:], SCHEMA)).collect()
    assert [tuple(line) for line in lines] == [
        ("order", 1, "b", 0.5, "embedding"),
        ("order", 2, "a", 0.25, "embedding"),
        ("scores", 1, "a", 0.5, "embedding"),
        ("scores", 2, "b", 0.125, "embedding"),
        ("new", 0, None, None, "popularity"),
    ]
