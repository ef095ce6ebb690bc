"""Users' embeddings from their interactions and the items' embeddings: also of users that training never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.blocks import binary_cell, single_blocks, training_rows
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_arrays
from recsys_spark.blockwise.plan import BlockMap, Blocks
from recsys_spark.blockwise.user_rows import ROW_COLUMNS
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.fold_in import fold_in_rows, places_of, pool_known
from recsys_spark.kernels.layout import user_columns
from recsys_spark.kernels.least_squares import FixedSide, WholeDataLoss, fixed_side
from recsys_spark.tables import Table


class FoldIn(Protocol):
    """How a user's vector follows from his items."""

    def solve(self, rows: CsrRows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The vectors of users, (rows, d), and who has one."""
        ...


@dataclass(frozen=True)
class LeastSquares:
    """The least squares of a pass over the users.

    The mapped arrays are a `FixedSide` of the trained items, and `places`, (n_items,): which of them an item is, or -1.
    """

    turned: MappedArray
    diagonal: MappedArray
    axes: MappedArray
    places: MappedArray
    loss: WholeDataLoss
    least_interactions: int

    def solve(self, rows: CsrRows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As in `FoldIn`."""
        fixed = FixedSide(self.turned.load(), self.diagonal.load(), self.axes.load())
        return fold_in_rows(rows, self.places.load(), fixed, self.loss, self.least_interactions)


@dataclass(frozen=True)
class Pooling:
    """The pooled vectors of the user's items; the mapped arrays are those of the trained items, and `places`."""

    vectors: MappedArray
    places: MappedArray
    is_cosine: bool
    least_interactions: int

    def solve(self, rows: CsrRows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """As in `FoldIn`."""
        return pool_known(rows, self.places.load(), self.vectors.load(), self.is_cosine, self.least_interactions)


def distribute_pooling(
    spark: SparkSession,
    vectors: NDArray[np.float32],
    is_trained: NDArray[np.bool_],
    is_cosine: bool,
    least_interactions: int,
    scratch: Path,
) -> Pooling:
    """Hand the items' vectors, (n_items, d), to the executors, to be pooled; memory and disk as below."""
    arrays = {"vectors": vectors[is_trained], "places": places_of(is_trained)}
    files = {name: distribute_array(spark, path) for name, path in save_arrays(scratch, arrays).items()}
    return Pooling(**files, is_cosine=is_cosine, least_interactions=least_interactions)


def distribute_least_squares(
    spark: SparkSession,
    vectors: NDArray[np.float32],
    is_trained: NDArray[np.bool_],
    loss: WholeDataLoss,
    least_interactions: int,
    scratch: Path,
) -> LeastSquares:
    """Hand the items' vectors, (n_items, d), to the executors, for users with enough trained items.

    Memory of the driver: twice the vectors; disk there and on each host: 4 bytes x d x trained items, and 4 an item.
    """
    arrays = {**fixed_side(vectors[is_trained])._asdict(), "places": places_of(is_trained)}
    files = {name: distribute_array(spark, path) for name, path in save_arrays(scratch, arrays).items()}
    return LeastSquares(**files, loss=loss, least_interactions=least_interactions)


def fold_in_users(blocks: Blocks, fold_in: FoldIn, n_items: int, hold_out: bool, table: Table) -> BlockMap:
    """`user_embeddings` of all users of `blocks`; users with too few trained items have none.

    A user's bits depend on his interactions and the items alone: not on his block. Memory of a task: a block, and what
    `solve_rows` says.
    """

    def solve(some: pa.RecordBatch) -> pa.RecordBatch:
        (block,) = single_blocks(some)
        vectors, is_trained = fold_in.solve(training_rows(block, n_items, hold_out))
        columns = user_columns(vectors, np.zeros(len(vectors), np.float32), is_trained)
        cells = [block.column("block_id"), binary_cell(columns), binary_cell(is_trained.astype(np.uint8))]
        return pa.record_batch(cells, names=table.schema.names)

    return BlockMap(blocks, ("block_id", *ROW_COLUMNS), solve, table.schema)
