"""Which items may be listed and what their scores are multiplied by."""

from __future__ import annotations

import datetime
from functools import reduce
from operator import mul, or_
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.kernels.boosts import MOST_BOOST
from recsys_spark.transforms.content import categories_of
from recsys_spark.transforms.events import end_of, text_as_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from recsys_spark.rule_sections import RuleSettings

_TRUE = ("true", "yes", "y", "t")


def judge_items(
    items: DataFrame, sources: Mapping[str, DataFrame], rules: RuleSettings, run_date: datetime.date
) -> DataFrame:
    """The table `item_rules`: all items with their verdict and the factor of their scores.

    Args:
        items: the item index.
        sources: the tables of the rules that are there, by name: `item_id`, and `factor` of `item_boosts`.
        rules: the settings.
        run_date: lists count as shown from its end on.
    """
    named = items
    for name in ("allow_items", "deny_items"):
        if name in sources:
            listed = sources[name].select("item_id", F.lit(True).alias(name)).distinct()
            named = named.join(listed, on="item_id", how="left")
    if "item_boosts" in sources:
        # Of an item that is named twice the larger one, so that the order of rows does not matter.
        factors = sources["item_boosts"].groupBy("item_id").agg(F.max("factor").alias("item_factor"))
        named = named.join(factors, on="item_id", how="left")
    verdict = F.when(_any(_denied(sources, rules)), "denied").when(_any(_unavailable(rules, run_date)), "unavailable")
    factors_of = [F.when(_has_any(each.attribute, (each.value,)), each.factor).otherwise(1.0) for each in rules.boosts]
    factors_of += [F.coalesce("item_factor", F.lit(1.0))] if "item_boosts" in sources else []
    return named.select(
        "item_idx",
        verdict.otherwise("listed").alias("verdict"),
        _within(reduce(mul, factors_of, F.lit(1.0))).cast("float").alias("factor"),
    )


def _within(factor: Column) -> Column:
    return F.greatest(F.least(factor, F.lit(MOST_BOOST)), F.lit(1 / MOST_BOOST))


def _denied(sources: Mapping[str, DataFrame], rules: RuleSettings) -> list[Column]:
    conditions = [F.col("deny_items")] if "deny_items" in sources else []
    conditions += [F.col("allow_items").isNull()] if "allow_items" in sources else []
    conditions += [_has_any(name, values) for name, values in rules.deny_categories.items()]
    return conditions + [~_has_any(name, values) for name, values in rules.allow_categories.items()]


def _unavailable(rules: RuleSettings, run_date: datetime.date) -> list[Column]:
    """A time that cannot be read keeps an item out, as does a stock of which nothing is known."""
    shown_from, conditions = end_of(run_date), []
    if rules.valid_from is not None:
        conditions.append(
            _is_given(rules.valid_from) & F.coalesce(_time_of(rules.valid_from) > shown_from, F.lit(True))
        )
    if rules.valid_to is not None:
        conditions.append(_is_given(rules.valid_to) & F.coalesce(_time_of(rules.valid_to) <= shown_from, F.lit(True)))
    if rules.in_stock is not None:
        text = F.lower(_text_of(rules.in_stock))
        count = text.try_cast("double")
        has_some = text.isin(*_TRUE) | ((count > 0) & ~F.isnan(count))  # NaN orders above all numbers
        conditions.append(~F.coalesce(has_some, F.lit(False)))
    return conditions


def _text_of(attribute: str) -> Column:
    return F.trim(F.col("attributes")[attribute])


def _is_given(attribute: str) -> Column:
    return F.coalesce(_text_of(attribute) != "", F.lit(False))


def _time_of(attribute: str) -> Column:
    return text_as_timestamp(_text_of(attribute))


def _has_any(attribute: str, values: Iterable[str]) -> Column:
    wanted = F.array(*[F.lit(value.strip().casefold()) for value in values])
    return F.coalesce(F.arrays_overlap(categories_of(attribute), wanted), F.lit(False))


def _any(conditions: list[Column]) -> Column:
    return reduce(or_, [F.coalesce(condition, F.lit(False)) for condition in conditions], F.lit(False))


def account_requested(requested: DataFrame, users: DataFrame, lengths: DataFrame, lists: DataFrame) -> DataFrame:
    """The table `requested_users`: each id that is asked for, once, and what became of it.

    Args:
        requested: the ids, as `user_id`.
        users: the user index.
        lengths: how long each user's list was to be, `user_idx, list_length`.
        lists: the table `recommendations`.
    """
    known = users.select("user_idx", "user_id").join(lengths, on="user_idx", how="left")
    given = lists.select("user_id", "tier", F.size("item_ids").alias("size"))
    found = requested.select("user_id").distinct().join(known, on="user_id", how="left")
    is_fallback = F.col("tier").isin("popularity", "segment_popularity")
    reason = (
        F.when(F.coalesce(F.trim("user_id"), F.lit("")) == "", "missing_id")
        .when(F.col("user_idx").isNull(), "unknown_user")
        .when(F.col("list_length") == 0, "no_list_wanted")
        .when(F.col("size").isNull(), "requested_late")
        .when(F.col("size") == 0, "nothing_left")
    )
    outcome = F.when(reason.isNotNull(), "refused").when(is_fallback, "fell_back").otherwise("scored")
    joined = found.join(given, on="user_id", how="left")
    return joined.select("user_id", outcome.alias("outcome"), reason.alias("reason"))
