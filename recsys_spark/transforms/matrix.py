"""Builds the sparse user-item matrix as CSR row blocks."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recsys_spark.blockwise.blocks import SPLITS, binary_cell, lists_of
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.tables import USER_BLOCKS
from recsys_spark.transforms.events import end_of

_DAY_US = 86_400e6


def build_user_blocks(
    users: DataFrame, interactions: DataFrame, block_users: int, run_date: datetime.date
) -> DataFrame:
    """The table `user_blocks`: `block_users` consecutive users a row, users without interactions included.

    Memory of a task: one block, about 25 bytes an interaction of its users plus their ids.
    """
    split = F.create_map(*[F.lit(part) for pair in SPLITS.items() for part in pair])[F.col("split")]
    entries = interactions.select(
        block_of(block_users), "user_idx", "item_idx", "rating", split.cast("int").alias("split"), _age(run_date)
    )
    # Another name: the positions of the entries come from the same column, and Spark would not tell them apart.
    members = users.select(block_of(block_users), F.col("user_idx").alias("member_idx"), "user_id")
    return members.groupBy("block_id").cogroup(entries.groupBy("block_id")).applyInArrow(_to_block, USER_BLOCKS.schema)


def block_of(block_users: int) -> Column:
    """The block of a row's user, as `block_id`."""
    return F.floor(F.col("user_idx") / F.lit(block_users)).cast("int").alias("block_id")


def _age(run_date: datetime.date) -> Column:
    """Days from the newest event of a pair to the end of the run date."""
    return ((F.unix_micros(end_of(run_date)) - F.unix_micros("last_at")) / F.lit(_DAY_US)).alias("age")


def _to_block(members: pa.Table, entries: pa.Table) -> pa.Table:
    """One CSR block from the users of a block and their interactions, in any order."""
    members = members.sort_by("member_idx")
    users = members.column("member_idx").to_numpy()
    first = int(users[0])
    rows, columns = entries.column("user_idx").to_numpy() - first, entries.column("item_idx").to_numpy()
    order = np.lexsort((columns, rows))
    indptr = np.zeros(len(users) + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=len(users)), out=indptr[1:])
    whole = IndexLists(np.array([0, len(users)], np.int64), users)
    block = {
        "block_id": pa.array([members.column("block_id")[0].as_py()], pa.int32()),
        "first_user_idx": pa.array([first], pa.int32()),
        "user_ids": lists_of(whole, members.column("user_id").combine_chunks()),
        "indptr": binary_cell(indptr),
        "indices": binary_cell(columns[order].astype(np.int32)),
        "ratings": binary_cell(entries.column("rating").to_numpy()[order].astype(np.float32)),
        "splits": binary_cell(entries.column("split").to_numpy()[order].astype(np.uint8)),
        "ages": binary_cell(entries.column("age").to_numpy()[order].astype(np.float32)),
    }
    return pa.table(block)
