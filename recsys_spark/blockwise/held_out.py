"""Predicts the held-out pairs of each user from the embeddings, and items beside them that the user has not had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql.types import DoubleType, IntegerType, LongType, StructField, StructType

from recsys_spark.blockwise.blocks import TEST, array_of, rows_of, user_positions
from recsys_spark.blockwise.plan import Block, BlockMap, Blocks
from recsys_spark.blockwise.predict import pair_scores
from recsys_spark.blockwise.scorers import ItemVectors
from recsys_spark.blockwise.user_rows import ROW_COLUMNS
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.metrics.pairs import draw_items, share_below

SQUARED_ERROR, ABSOLUTE_ERROR, GAUC = "squared_error", "absolute_error", "gauc"
PREDICTED = StructType(
    [
        StructField("user_idx", IntegerType(), nullable=False),
        StructField("pairs", LongType(), nullable=False),
        *(StructField(name, DoubleType()) for name in (SQUARED_ERROR, ABSOLUTE_ERROR, GAUC)),
    ]
)
"""How many held-out pairs of a user are predicted, and sums over them; null for what is not measured."""


@dataclass(frozen=True)
class PairPredictor:
    """Scores of pairs by the embeddings: `items` that have one, and what scores have beside the product of two.

    `lowest` is what the lowest rating was scaled to, None where scores are no ratings; `is_logistic`: scores stand for
    what their logistic function is. `samples` items a user are drawn by `seed` to compare the held-out ones with.
    """

    items: ItemVectors
    hidden: HiddenLayer | None
    lowest: float | None
    is_logistic: bool
    samples: int
    seed: int

    def measure(self, block: Block) -> pa.RecordBatch:
        """A row of `PREDICTED` for each user of whom a held-out pair can be predicted."""
        is_trained = array_of(block, "is_trained", np.uint8).astype(bool)
        vectors = array_of(block, "vectors", np.float32).reshape(len(is_trained), -1)
        places = self.items.places.load()
        all_rows = rows_of(block, len(places))
        held_out = all_rows.select(array_of(block, "splits", np.uint8) == TEST)
        rows, found = _users_of(held_out), places[held_out.indices]
        is_known = is_trained[rows] & (found >= 0)
        rows, found, ratings = rows[is_known], found[is_known], held_out.values[is_known]
        scores = pair_scores(vectors[rows], self.items, found, self.hidden)
        counts = np.bincount(rows, minlength=len(is_trained))
        users = np.flatnonzero(counts)
        columns = [
            pa.array(user_positions(block)[users]),
            pa.array(counts[users]),
            *(_sums(values, rows, users) for values in self._errors(scores, ratings)),
            _sums(self._shares(scores, rows, users, user_positions(block), vectors, all_rows), rows, users),
        ]
        return pa.record_batch(columns, names=PREDICTED.names)

    def _errors(
        self, scores: NDArray[np.float32], ratings: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        if self.lowest is None:
            return None, None
        raw = scores.astype(np.float64)
        predicted = 1.0 / (1.0 + np.exp(-raw)) if self.is_logistic else raw
        errors = np.clip(predicted, self.lowest, 1.0) - ratings
        return np.square(errors), np.abs(errors)

    def _shares(
        self,
        scores: NDArray[np.float32],
        rows: NDArray[np.intp],
        users: NDArray[np.intp],
        positions: NDArray[np.int32],
        vectors: NDArray[np.float32],
        all_rows: CsrRows,
    ) -> NDArray[np.float64] | None:
        if not self.samples or not len(users):
            return None
        candidates = self.items.positions.load()
        drawn = draw_items(positions[users], self.samples, len(candidates), self.seed)
        owners = np.repeat(users, self.samples)
        others = pair_scores(vectors[owners], self.items, drawn.ravel(), self.hidden).reshape(drawn.shape)
        stride = all_rows.n_columns
        had = np.isin(owners * stride + candidates[drawn.ravel()], _users_of(all_rows) * stride + all_rows.indices)
        return share_below(scores, np.searchsorted(users, rows), others, ~had.reshape(drawn.shape))


def _users_of(rows: CsrRows) -> NDArray[np.intp]:
    return np.repeat(np.arange(rows.n_rows), np.diff(rows.indptr))


def _sums(values: NDArray[np.float64] | None, rows: NDArray[np.intp], users: NDArray[np.intp]) -> pa.Array:
    """By user; null where there is nothing, or a value is undefined."""
    if values is None:
        return pa.nulls(len(users), pa.float64())
    sums = np.bincount(rows, values, minlength=int(users.max(initial=-1)) + 1)[users]
    return pa.array(sums, pa.float64(), mask=np.isnan(sums))


def predict_held_out(blocks: Blocks, predictor: PairPredictor) -> BlockMap:
    """The rows of `PREDICTED` for the users of `blocks`: `user_blocks` with `user_embeddings`.

    Memory of a task: its block, and 40 bytes x samples x users of the block.
    """

    def measure(some: pa.RecordBatch) -> pa.RecordBatch:
        return predictor.measure(some)

    return BlockMap(blocks, (*ROW_COLUMNS, "vectors", "is_trained"), measure, PREDICTED)
