"""Sets some of the user-item pairs aside: `test` for measuring, `validation` for choosing epochs and weights.

A pair has one split, and no held-out pair is trained on. Random numbers are hashes of ids, so that a pair, a user or an
item stays where it is from night to night, in a sample of the users and in another root, and however the rows are
partitioned. Positions would tell in what order ids came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from recsys_spark.sections import EvaluateSettings

_HASHES = 1_000_000
_COLUMNS = ("user_idx", "item_idx", "rating", "value", "event_count", "last_at", "last_at_by_type", "split")
_PAIR = ("user_id", "item_id")
_HASHED = {"random": _PAIR, "fold": _PAIR, "users": ("user_id",), "items": ("item_id",)}
_IDS = _HASHED | {"last": ("item_id",), "newest": ("item_id",)}


def assign_splits(
    pairs: DataFrame, users: DataFrame, items: DataFrame, evaluate: EvaluateSettings, seed: int
) -> DataFrame:
    """Adds `split`: train, validation or test, and puts the columns in the order of `interactions`.

    `last`: a user's newest pair tests when the user has two or more, the one before validates when there are three.
    Of pairs of one moment the one of the largest item id, as text, counts as newest.
    `newest`: the same of the newest share of the pairs, at least one, and as many before them.
    `time`: what is of the newest minutes that together have the share of all pairs tests, of those before validates;
    the oldest minute, and pairs without a time, train. Memory: of one task, 16 bytes a minute that has pairs.
    `random`, `users`, `items`: a share of the pairs, the users or the items, as much again for validation.
    `fold`: one of `folds` equal parts of the pairs tests; of the rest a share validates.

    Args:
        pairs: `interactions` without `split`, by positions.
        users: the user index.
        items: the item index.
        evaluate: what is held out.
        seed: of the hashes.
    """
    if evaluate.split == "time":
        return _before_and_after(pairs, evaluate.share).select(*_COLUMNS)
    if evaluate.split in ("last", "newest"):
        split = _newest(evaluate.share if evaluate.split == "newest" else 0.0)
    elif evaluate.split == "fold":
        split = _folds(evaluate, seed)
    else:
        point = _point(seed, _HASHED[evaluate.split])
        split = _split(point < evaluate.share, point < 2 * evaluate.share)
    return _with_ids(pairs, users, items, _IDS[evaluate.split]).withColumn("split", split).select(*_COLUMNS)


def hold_back_test(
    pairs: DataFrame, users: DataFrame, items: DataFrame, evaluate: EvaluateSettings, seed: int
) -> DataFrame:
    """Interactions for tuning: without their test pairs, and measured on those that validated.

    What was held out to validate becomes `test`, and of what is left as much is held out anew to validate, by the same
    rule with another seed; with `fold`, whose rule holds out a part and not a share, a random share.
    """
    if evaluate.split == "fold":
        evaluate = evaluate.model_copy(update={"split": "random"})
    measured = pairs.where(F.col("split") == "validation").withColumn("split", F.lit("test"))
    trained = pairs.where(F.col("split") == "train").drop("split")
    rest = assign_splits(trained, users, items, evaluate, seed + 1)
    split = F.when(F.col("split") == "test", "validation").otherwise("train")
    return rest.withColumn("split", split).unionByName(measured.select(*rest.columns))


def take_splits(pairs: DataFrame, users: DataFrame, items: DataFrame, split_ids: DataFrame) -> DataFrame:
    """Interactions with the splits of the same pairs elsewhere; a pair that is not there is left out.

    Args:
        pairs: the interactions.
        users: their user index.
        items: their item index.
        split_ids: `user_id, item_id, split`.
    """
    positioned = (
        split_ids.join(users.select("user_idx", "user_id"), on="user_id", how="inner")
        .join(items.select("item_idx", "item_id"), on="item_id", how="inner")
        .select("user_idx", "item_idx", "split")
    )
    return pairs.drop("split").join(positioned, on=["user_idx", "item_idx"], how="inner").select(*pairs.columns)


def _with_ids(pairs: DataFrame, users: DataFrame, items: DataFrame, ids: tuple[str, ...]) -> DataFrame:
    for index, name in ((users, "user"), (items, "item")):
        if f"{name}_id" in ids:
            pairs = pairs.join(index.select(f"{name}_idx", f"{name}_id"), on=f"{name}_idx", how="inner")
    return pairs


def _split(is_test: Column, is_validation: Column) -> Column:
    return F.when(is_test, "test").when(is_validation, "validation").otherwise("train")


def _newest(share: float) -> Column:
    by_user = Window.partitionBy("user_idx")
    age = F.row_number().over(by_user.orderBy(F.col("last_at").desc_nulls_last(), F.col("item_id").desc()))
    pairs = F.count("*").over(by_user)
    tested = F.greatest(F.floor(pairs * F.lit(share)), F.lit(1))
    return _split((age <= tested) & (pairs >= 2), (age <= 2 * tested) & (pairs >= 3))


def _before_and_after(pairs: DataFrame, share: float) -> DataFrame:
    """One moment for all users: a model of the past is measured on what was the future of everybody."""
    minutes = pairs.where(F.col("last_at").isNotNull()).groupBy(_minute().alias("minute")).count()
    everything = Window.partitionBy(F.lit(0))
    newer = everything.orderBy(F.col("minute").desc()).rowsBetween(Window.unboundedPreceding, -1)
    counted = minutes.select(
        "minute",
        F.coalesce(F.sum("count").over(newer), F.lit(0)).alias("newer"),
        F.sum("count").over(everything).alias("total"),
        F.min("minute").over(everything).alias("oldest"),
    )
    later = counted.where(F.col("minute") > F.col("oldest"))
    cuts = later.agg(_first_minute(share).alias("tested_from"), _first_minute(2 * share).alias("validated_from"))
    # One row beside every pair: none is multiplied.
    split = _split(_minute() >= F.col("tested_from"), _minute() >= F.col("validated_from"))
    return pairs.join(F.broadcast(cuts), how="cross").withColumn("split", split)


def _first_minute(share: float) -> Column:
    """Of the newest minutes, as many as have the share together."""
    return F.min(F.when(F.col("newer") < F.lit(share) * F.col("total"), F.col("minute")))


def _minute() -> Column:
    return F.floor(F.unix_micros("last_at") / F.lit(60_000_000))


def _folds(evaluate: EvaluateSettings, seed: int) -> Column:
    fold = F.floor(_point(seed, _PAIR) * evaluate.folds)
    return _split(fold == evaluate.fold, _point(seed, _PAIR, "validation") < evaluate.share)


def _point(seed: int, columns: tuple[str, ...], *salt: str) -> Column:
    """A number from 0 to below 1 of the values and the seed."""
    return F.pmod(F.xxhash64(F.lit(seed), *columns, *map(F.lit, salt)), F.lit(_HASHES)) / F.lit(_HASHES)
