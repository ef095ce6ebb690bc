"""The embedding model learned from whole data by alternating least squares, one side of the tables a step."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from recsys_spark.kernels.csr import IndexLists, rows_of_ones, transpose_lists
from recsys_spark.kernels.least_squares import WholeDataLoss, fixed_side, solve_rows
from recsys_spark.models.closed_form import ClosedFormModel
from recsys_spark.models.interactions import TrainingPairs

USERS, ITEMS = 0, 1  # the steps of a pass
UNOBSERVED_SHARE = 10.0


def balanced_weight(pairs: TrainingPairs) -> float:
    """The weight of a pair with which all of a user's weigh `UNOBSERVED_SHARE` times the seen ones; at most 1.

    Good from 3,700 to 41,000 items, where one weight for all of them is not (docs/decisions/0013).
    """
    return min(1.0, UNOBSERVED_SHARE * len(pairs) / (pairs.n_users * pairs.n_items))


def sampled_l2(l2: float, share: float) -> float:
    """The `l2` for a share of the users that ranks best for all of them when `l2` does for a model of all.

    Found by trying, on MovieLens-1M and Gowalla (docs/quality.md).
    """
    return float(l2 * share**-0.25)


class AlternatingModel(ClosedFormModel):
    """An `EmbeddingModel` whose step solves one side's vectors, the other's fixed.

    Short rows in closed form, others by a few steps of conjugate gradient from where the last pass left them:
    `kernels.least_squares`.
    """

    advice = "raise model.l2"

    def compile(self, loss: WholeDataLoss, pairs: TrainingPairs) -> None:  # type: ignore[override]
        """Set what a pass minimises, and over which pairs; 4 bytes a pair beside them."""
        self.compile_without_optimizer()
        self.minimised = loss
        self._sides = {USERS: (self.users, self.items), ITEMS: (self.items, self.users)}
        by_user = IndexLists(pairs.indptr(), pairs.item_idx)
        by_item = transpose_lists(by_user, pairs.n_items, pairs.make_array(np.int32, len(pairs)))
        self._rows = {USERS: rows_of_ones(by_user, pairs.n_items), ITEMS: rows_of_ones(by_item, pairs.n_users)}

    def train_step(self, batch: Any) -> dict[str, Any]:
        """Solve the side whose step the batch, (1,), numbers; the loss is the mean of both, each with its penalty."""
        side = int(batch[0][0])  # Keras makes a tuple of what a batch is
        (solved, fixed), rows = self._sides[side], self._rows[side]
        penalties = self.minimised.penalties(rows)
        weight, other = self.minimised.unobserved_weight, fixed_side(fixed.vectors())
        vectors, shares = solve_rows(rows, other, weight, penalties, _processors(), solved.vectors())
        solved.assign(vectors)
        return self.report_loss(float(shares.sum() / rows.nnz))


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
