"""What a training step minimises: a loss over scores plus the L2 penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys_spark.models.backend import ops
from recsys_spark.models.embedding import EmbeddingModel, Encoded
from recsys_spark.models.losses import Loss, Scores
from recsys_spark.models.negatives import NegativeSampler

Tensor = Any


@dataclass(frozen=True)
class Objective:
    """One value a sample: its loss, and `l2` times the squared length of the vectors it touches.

    Negatives count with the mean of their squared lengths. Biases are not penalised.
    """

    loss: Loss
    sampler: NegativeSampler | None
    l2: float

    def __call__(self, model: EmbeddingModel, inputs: tuple[Tensor, Tensor], rating: Tensor, step: Tensor) -> Tensor:
        """Values (b,) of pairs `inputs`, user and item positions (b,), with `rating` (b,) at a training step."""
        user_idx, item_idx = inputs
        users, positives = model.users(user_idx), model.items(item_idx)
        penalty = _squared_length(users) + _squared_length(positives)
        negative = is_negative = None
        if self.sampler is not None:
            sampled, is_negative = self.sampler.sample(user_idx, step)
            negatives = model.items(sampled)
            negative = model.score(Encoded(users.vectors[:, None, :], users.biases[:, None]), negatives)
            is_negative = ops.cast(is_negative, "float32")
            penalty += ops.mean(_squared_length(negatives), axis=-1)
        scores = Scores(model.score(users, positives), negative, is_negative, rating)
        return self.loss.function(scores) + self.l2 * penalty


def _squared_length(encoded: Encoded) -> Tensor:
    return ops.sum(ops.square(encoded.vectors), axis=-1)
