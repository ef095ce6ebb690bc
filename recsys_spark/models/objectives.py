"""What a training step minimises: of each pair its loss and its penalty, which stand apart.

The penalty is `l2` times the squared length of the vectors the pair touches, of negatives the mean. Biases are not
penalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.backend import ops
from recsys_spark.models.embedding import Batch, EmbeddingModel
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.losses import PAIR_LOSSES, Scores, SharedScores, cosine_contrastive, softmax
from recsys_spark.models.negatives import AllItems, ItemSampler, NegativeSampler, SharedNegatives

Tensor = Any


@dataclass(frozen=True)
class PairObjective:
    """Each pair of a batch on its own, beside negatives drawn for it."""

    loss: Callable[[Scores], Tensor]
    sampler: NegativeSampler | None
    l2: float

    def __call__(self, model: EmbeddingModel, batch: Batch, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, penalties and weights, (b,), of a batch of `PairBatches` at a training step."""
        (user_idx, item_idx), rating, weight = batch
        users, positives = model.users(user_idx), model.items(item_idx)
        penalty = _squared_length(model, users) + _squared_length(model, positives)
        negative = is_negative = None
        if self.sampler is not None:
            sampled, is_negative = self.sampler.sample(user_idx, step)
            negatives = model.items(sampled)
            negative = model.score(users[:, None, :], negatives)
            is_negative = ops.cast(is_negative, "float32")
            penalty += ops.mean(_squared_length(model, negatives), axis=-1)
        scores = Scores(model.score(users, positives), negative, is_negative, rating)
        return self.loss(scores), self.l2 * penalty, weight


@dataclass(frozen=True)
class UserObjective:
    """Users with all of their pairs, against items that all users of the batch share: one matrix product."""

    loss: Callable[[SharedScores], Tensor]
    negatives: SharedNegatives | AllItems
    l2: float

    def __call__(self, model: EmbeddingModel, batch: Batch, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, penalties and weights, (b,), of a batch of `UserBatches` at a training step."""
        inputs, _, weight = batch
        _, rows, item_idx = inputs
        shared = self.negatives.choose(inputs, step)
        users, wanted = model.encode_users(batch, step)
        positives, negatives = model.items(item_idx), model.items(shared.items)
        own = ops.take(users, rows, axis=0)
        scores = SharedScores(
            model.score(own, positives),
            rows,
            model.score_all(users, negatives),
            ops.cast(shared.is_negative, "float32"),
            shared.log_expected,
        )
        penalty = _squared_length(model, own) + _squared_length(model, positives)
        penalty += ops.mean(_squared_length(model, negatives))
        return self.loss(scores), self.l2 * penalty, weight * wanted


def build_objective(pairs: TrainingPairs, settings: ModelSettings, seed: int) -> PairObjective | UserObjective:
    """What a loss of pairs, or of users with their pairs, minimises over the trained pairs."""
    if settings.predicts_ratings:
        return PairObjective(PAIR_LOSSES[settings.loss], None, settings.l2_penalty)
    sampler = ItemSampler(pairs.item_counts(), settings.popularity_exponent, seed)
    if not settings.is_trained_by_user:
        loss, negatives = PAIR_LOSSES[settings.loss], NegativeSampler(pairs, settings.sampled_negatives, sampler)
        return PairObjective(loss, negatives, settings.l2_penalty)
    if settings.loss == "softmax":
        shared: AllItems | SharedNegatives = AllItems(pairs.n_items)
    else:
        batch_size = min(settings.pairs_in_batch, len(pairs))
        shared = SharedNegatives(pairs, settings.sampled_negatives, sampler, settings.in_batch_negatives, batch_size)
    if settings.loss == "cosine_contrastive":
        contrastive = partial(cosine_contrastive, margin=settings.margin, negative_weight=settings.negative_weight)
        return UserObjective(contrastive, shared, settings.l2_penalty)
    return UserObjective(partial(softmax, temperature=settings.softmax_temperature), shared, settings.l2_penalty)


def _squared_length(model: EmbeddingModel, rows: Tensor) -> Tensor:
    return ops.sum(ops.square(model.items.vectors_of(rows)), axis=-1)
