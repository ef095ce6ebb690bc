"""Who gets a list, how long it is, and what is not in it, in blocks beside those of the matrix."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.blockwise.blocks import binary_cell
from recsys_spark.kernels.exclusions import HiddenItems, hide_items
from recsys_spark.tables import FORGOTTEN_ID, USER_RULES
from recsys_spark.transforms.events import end_of
from recsys_spark.transforms.matrix import block_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recsys_spark.rule_sections import RuleSettings

SEEN, DENIED, ALLOWED = 0, 1, 2
"""Kinds of pairs of users and items."""

_DAY_S = 86_400


def wanted_users(
    users: DataFrame,
    interactions: DataFrame,
    sources: Mapping[str, DataFrame],
    rules: RuleSettings,
    top_k: int,
    run_date: datetime.date,
) -> DataFrame:
    """All users as `user_idx, list_length, given_length, has_candidates`: -1 for who gets no row, else at most `top_k`.

    `given_length` is the attribute's text. Users whose text is no whole number of at least 0 get `top_k`.
    """
    text = F.lit(None).cast("string") if rules.list_length is None else F.trim(F.col("attributes")[rules.list_length])
    chosen = users.select("user_idx", "user_id", text.alias("given_length"))
    wanted = F.lit("requested_users" not in sources and rules.active_days is None)
    if rules.active_days is not None:
        is_active = _age_s(F.col("last_at"), run_date) <= rules.active_days * _DAY_S
        active = interactions.where(is_active).select("user_idx", F.lit(True).alias("is_active"))
        chosen, wanted = chosen.join(active.distinct(), on="user_idx", how="left"), wanted | F.col("is_active")
    for name in ("requested_users", "candidates"):
        if name in sources:
            named = sources[name].select("user_id", F.lit(True).alias(name)).distinct()
            chosen = chosen.join(named, on="user_id", how="left")
    if "requested_users" in sources:
        wanted = F.coalesce(wanted, F.lit(False)) | F.coalesce("requested_users", F.lit(False))
    wanted = wanted & ~F.col("user_id").startswith(FORGOTTEN_ID)
    length = F.col("given_length").try_cast("int")
    length = F.when(length >= 0, F.least(length, F.lit(top_k))).otherwise(top_k)
    has_candidates = F.col("candidates").isNotNull() if "candidates" in sources else F.lit(False)
    return chosen.select(
        "user_idx",
        F.when(F.coalesce(wanted, F.lit(False)), length).otherwise(-1).cast("int").alias("list_length"),
        "given_length",
        has_candidates.alias("has_candidates"),
    )


def count_users(wanted: DataFrame, top_k: int) -> DataFrame:
    """One row: users who get a row, lengths that are no whole number of at least 0, lengths above `top_k`."""
    length, is_given = F.col("given_length").try_cast("int"), F.coalesce(F.col("given_length") != "", F.lit(False))
    return wanted.agg(
        F.count_if(F.col("list_length") >= 0).alias("users"),
        F.count_if(is_given & (length.isNull() | (length < 0))).alias("unreadable_lengths"),
        F.count_if(length > top_k).alias("shortened_lengths"),
    )


def ruled_pairs(
    interactions: DataFrame | None,
    named: Mapping[int, DataFrame],
    item_rules: DataFrame,
    rules: RuleSettings,
    run_date: datetime.date,
) -> DataFrame:
    """Pairs of users and items that may be listed at all, as `user_idx, item_idx, kind`.

    Args:
        interactions: of which those that are still seen count, or None where none are.
        named: pairs `user_idx, item_idx` of the rules' tables, by kind.
        item_rules: the table `item_rules`.
        rules: the settings.
        run_date: ages are counted from its end.
    """
    parts = [pairs.select("user_idx", "item_idx", F.lit(kind).alias("kind")) for kind, pairs in named.items()]
    if interactions is not None:
        seen = interactions.where(_is_seen(rules, run_date))
        parts.append(seen.select("user_idx", "item_idx", F.lit(SEEN).alias("kind")))
    empty = item_rules.sparkSession.createDataFrame([], "user_idx int, item_idx int, kind int")
    for part in parts:
        empty = empty.unionByName(part)
    listed = item_rules.where(F.col("verdict") == "listed").select("item_idx")
    return empty.join(listed, on="item_idx", how="left_semi")


def build_user_rules(wanted: DataFrame, pairs: DataFrame, block_users: int) -> DataFrame:
    """The table `user_rules`, a block of consecutive users a row.

    Memory of a task: one block, some 30 bytes a pair of its users.
    """
    entries = pairs.select(block_of(block_users), "user_idx", "item_idx", "kind")
    members = wanted.select(
        block_of(block_users), F.col("user_idx").alias("member_idx"), "list_length", "has_candidates"
    )
    return members.groupBy("block_id").cogroup(entries.groupBy("block_id")).applyInArrow(_to_block, USER_RULES.schema)


def _is_seen(rules: RuleSettings, run_date: datetime.date) -> Column:
    """Whether a pair has an event that still counts; one without types always does."""
    if not rules.seen_days:
        return F.lit(True)
    days = F.create_map(*[F.lit(part) for pair in rules.seen_days.items() for part in pair])

    def counts(entry: Column) -> Column:
        return F.coalesce(_age_s(entry["value"], run_date) < F.element_at(days, entry["key"]) * _DAY_S, F.lit(True))

    entries = F.map_entries("last_at_by_type")
    return (F.size(entries) == 0) | F.exists(entries, counts)


def _age_s(at: Column, run_date: datetime.date) -> Column:
    return (F.unix_micros(end_of(run_date)) - F.unix_micros(at)) / F.lit(1e6)


def _to_block(members: pa.Table, entries: pa.Table) -> pa.Table:
    members = members.sort_by("member_idx")
    first = int(members.column("member_idx")[0].as_py())
    lengths: NDArray[np.int32] = members.column("list_length").to_numpy()
    rows, items, kinds = (entries.column(name).to_numpy() for name in ("user_idx", "item_idx", "kind"))
    of_kinds = [(rows[kinds == kind] - first, items[kinds == kind]) for kind in (SEEN, DENIED, ALLOWED)]
    has_candidates = members.column("has_candidates").to_numpy()
    hidden: HiddenItems = hide_items(lengths > 0, has_candidates, *of_kinds)
    block = {
        "block_id": pa.array([members.column("block_id")[0].as_py()], pa.int32()),
        "list_lengths": binary_cell(lengths.astype(np.int32)),
        "has_candidates": binary_cell(has_candidates.astype(np.uint8)),
        "hidden_indptr": binary_cell(hidden.lists.indptr),
        "hidden_indices": binary_cell(hidden.lists.indices.astype(np.int32)),
        "are_allowed": binary_cell(hidden.lists.are_allowed.astype(np.uint8)),
        "seen_counts": binary_cell(hidden.seen_counts),
        "denied_counts": binary_cell(hidden.denied_counts),
    }
    return pa.table(block)
