"""Embedding models whose steps solve for vectors instead of descending a gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys_spark.models.backend import keras
from recsys_spark.models.embedding import EmbeddingModel


class ClosedFormModel(EmbeddingModel):
    """An `EmbeddingModel` without an optimizer, and without biases."""

    def __init__(self, n_users: int, n_items: int, embedding_dim: int) -> None:
        super().__init__(n_users, n_items, embedding_dim, has_biases=False)

    def compile_without_optimizer(self) -> None:
        """Make it ready for `fit`."""
        # Eagerly, because a step is a few calls of code that is compiled already.
        keras.Model.compile(self, optimizer=None, run_eagerly=True, jit_compile=False)
        self._loss = keras.metrics.Mean(name="loss")

    def report_loss(self, loss: float) -> dict[str, float]:
        """What a step returns: the mean of the pass so far."""
        self._loss.update_state(loss)
        return {"loss": self._loss.result()}


class StepNumbers(keras.utils.PyDataset):  # type: ignore[misc]
    """A pass: so many steps, each given its number from 0, (1,)."""

    def __init__(self, steps: int) -> None:
        super().__init__(workers=1)
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> NDArray[np.int32]:
        return np.array([step], np.int32)
