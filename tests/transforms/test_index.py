from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.sections import EntitySettings
from recsys_spark.transforms.index import append_index, describe_entities, known_ids, rejected_entities

IDS = "id string, attributes map<string,string>"
ids_lists = st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=30)


def ids_frame(spark: SparkSession, ids: list[str], partitions: int = 2) -> DataFrame:
    return spark.createDataFrame([(each, None) for each in ids], IDS).repartition(partitions)


def index_of(frame: DataFrame) -> dict[str, int]:
    return {row["user_id"]: row["user_idx"] for row in frame.collect()}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=ids_lists, new=ids_lists)
def test_positions_are_contiguous_and_kept(spark: SparkSession, old: list[str], new: list[str]) -> None:
    first = append_index(ids_frame(spark, old), None, 0, "user").cache()
    both = index_of(append_index(ids_frame(spark, sorted({*old, *new})), first, len(old), "user"))
    assert sorted(both.values()) == list(range(len({*old, *new})))
    assert {each: both[each] for each in old} == index_of(first)


def test_positions_do_not_depend_on_partitions(spark: SparkSession) -> None:
    ids = [f"user-{number}" for number in range(500)]
    few = index_of(append_index(ids_frame(spark, ids, 1), None, 0, "user"))
    many = index_of(append_index(ids_frame(spark, ids[::-1], 7), None, 0, "user"))
    assert few == many


def test_ids_that_left_the_input_keep_their_position(spark: SparkSession) -> None:
    first = append_index(ids_frame(spark, ["a", "b"]), None, 0, "user").cache()
    second = index_of(append_index(ids_frame(spark, ["c"]), first, 2, "user"))
    assert second["c"] == 2
    assert {each: second[each] for each in ("a", "b")} == index_of(first)


def test_index_is_the_union_of_accepted_events_and_described_entities(spark: SparkSession) -> None:
    events = spark.createDataFrame(
        [("a", "accepted"), ("b", "later"), (None, "quarantined"), ("a", "accepted")], "item_id string, status string"
    )
    raw = spark.createDataFrame(
        [("c", "Sea", ["x", "y"]), ("c", "Sea", ["x", "y"]), (None, "No id", [])], "k string, t string, g array<string>"
    )
    described = describe_entities(raw, EntitySettings(path="p", id="k", attributes={"title": "t", "tags": "g"}), 1024)
    known = {row["id"]: row["attributes"] for row in known_ids(events, "item_id", described).collect()}
    assert known == {"a": None, "c": {"title": "Sea", "tags": "x y"}}
    empty = spark.createDataFrame([], "source string, row string, reasons array<string>")
    rejected = rejected_entities(empty, {"items": described}).collect()
    assert [(row["source"], row["reasons"]) for row in rejected] == [("items", ["entity_id_missing"])]


def test_a_described_row_that_does_not_parse_is_rejected(spark: SparkSession) -> None:
    raw = spark.createDataFrame(
        [("a", "Sea", None), ("b", None, "b"), (None, None, '{"k"')], "k string, t string, _corrupt_record string"
    )
    described = describe_entities(raw, EntitySettings(path="p", id="k", attributes={"title": "t"}), 1024)
    assert [row["reasons"] for row in described.collect()] == [
        [], ["corrupt_record"], ["corrupt_record", "entity_id_missing"],
    ]  # fmt: skip


def test_attributes_are_renewed_and_kept(spark: SparkSession) -> None:
    first = spark.createDataFrame(
        [(0, "a", {"title": "old"}), (1, "b", {"title": "kept"})],
        "item_idx int, item_id string, attributes map<string,string>",
    )
    tonight = spark.createDataFrame([("a", {"title": "new"}), ("b", None)], IDS)
    rows = append_index(tonight, first, 2, "item").collect()
    assert {row["item_id"]: row["attributes"]["title"] for row in rows} == {"a": "new", "b": "kept"}
