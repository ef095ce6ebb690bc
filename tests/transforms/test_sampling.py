from __future__ import annotations

from pyspark.sql import SparkSession

from recsys_spark.transforms.sampling import keep_users


def test_users_are_kept_with_all_their_rows_in_any_partitioning(spark: SparkSession) -> None:
    rows = [(f"u{user}", item) for user in range(1_000) for item in range(3)]
    frame = spark.createDataFrame(rows, "`user id` string, item int")
    kept = [
        {tuple(row) for row in keep_users(frame.repartition(parts), "user id", 0.3, seed=1).collect()}
        for parts in (1, 7)
    ]
    assert kept[0] == kept[1]
    users = {user for user, _ in kept[0]}
    assert 250 < len(users) < 350
    assert len(kept[0]) == 3 * len(users)
    other = {row["user id"] for row in keep_users(frame, "user id", 0.3, seed=2).collect()}
    assert other != users


def test_numbers_and_text_are_the_same_ids(spark: SparkSession) -> None:
    numbers = keep_users(spark.range(500).withColumnRenamed("id", "user"), "user", 0.5, seed=0)
    texts = keep_users(spark.createDataFrame([(str(user),) for user in range(500)], "user string"), "user", 0.5, seed=0)
    assert {str(row["user"]) for row in numbers.collect()} == {row["user"] for row in texts.collect()}


def test_rows_without_a_user_are_left_out(spark: SparkSession) -> None:
    assert keep_users(spark.createDataFrame([(None,), ("ann",)], "user string"), "user", 1.0, seed=0).count() == 1
