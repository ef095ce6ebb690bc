from __future__ import annotations

import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from recsys_spark.sections import EntitySettings
from recsys_spark.tables import EVENTS
from recsys_spark.transforms.index import describe_entities
from recsys_spark.transforms.survey import REJECTED, survey_attributes, survey_events


def event(user: str | None, item: str, rating: float, day: int, status: str = "accepted") -> tuple[Any, ...]:
    return user, item, rating, None, datetime.datetime(2024, 3, day), status, [], None


def described(spark: SparkSession, rows: list[tuple[Any, ...]], **attributes: str) -> DataFrame:
    columns = ["id", *attributes.values()]
    raw = spark.createDataFrame(rows, ", ".join(f"{column} string" for column in columns))
    return describe_entities(raw, EntitySettings(path="x", id="id", attributes=attributes), 1024)


def test_counts_of_users_and_items(spark: SparkSession) -> None:
    rows = [
        event("ann", "tea", 4.0, 1),
        event("ann", "tea", 5.0, 2),
        event("ann", "rye", 3.0, 2),
        event("ann", "jam", 3.0, 3, status="later"),
        event("bob", "tea", 1.0, 4),
        event("bob", "jam", 1.0, 4),
        event(None, "tea", 2.0, 5, status="quarantined"),
        event("eve", "tea", 9.0, 5, status="quarantined"),
    ]
    users = described(spark, [("ann",), ("zoe",), ("",)])
    found = {
        row["kind"]: row
        for row in survey_events(spark.createDataFrame(rows, EVENTS.schema), {"users": users}).collect()
    }
    assert set(found) == {"users", "items", REJECTED}
    of_users, of_items = found["users"], found["items"]
    assert (of_users["known"], of_users["active"], of_users["pairs"], of_users["events"]) == (3, 2, 5, 6)
    assert (of_users["few"], of_users["validated"], of_users["in_order"]) == (3, 1, 1)  # bob's two are of one day
    assert (of_users["lowest"], of_users["highest"]) == (1.0, 5.0)
    assert (of_items["known"], of_items["active"], of_items["pairs"], of_items["median"]) == (3, 3, 5, 2)
    assert found[REJECTED]["events"] == 2


def test_what_attributes_look_like(spark: SparkSession) -> None:
    rows = [("a", "A long way home", "1999", "Comedy|War"), ("b", "Home", "2001", "War"), ("c", " ", None, "War")]
    items = described(spark, rows, title="t", year="y", genres="g")
    (row,) = survey_attributes(items, ["title", "year", "genres"]).collect()
    assert row["rows"] == 3
    assert row["title"].asDict() == {"filled": 2, "words": 2.5, "numeric": 0, "distinct": 2}
    assert row["year"].asDict() == {"filled": 2, "words": 1.0, "numeric": 2, "distinct": 2}
    assert row["genres"]["words"] == 4 / 3
    assert (row["genres"]["filled"], row["genres"]["distinct"]) == (3, 2)
