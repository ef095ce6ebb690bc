"""The embedding model with a hidden layer beside the dot product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.hidden import HiddenLayer, hidden_scores, hidden_scores_of_all
from recsys_spark.models.backend import ops
from recsys_spark.models.embedding import EmbeddingModel, as_array

Tensor = Any

_SCORES_AT_ONCE = 2**22


class NeumfModel(EmbeddingModel):
    """score = that of an `EmbeddingModel` + output . relu(hidden layer over both vectors). He et al., WWW 2017.

    One table a side serves both parts, where the paper has two. Lists would need each pair on its own; it predicts
    pairs and ranks given ones.
    """

    def __init__(self, n_users: int, n_items: int, embedding_dim: int, hidden_units: int) -> None:
        super().__init__(n_users, n_items, embedding_dim)
        shapes = {
            "of_users": (hidden_units, embedding_dim),
            "of_items": (hidden_units, embedding_dim),
            "biases": (hidden_units,),
            "output": (hidden_units,),
        }
        weights = {name: self.add_weight(shape=shape, initializer="zeros", name=name) for name, shape in shapes.items()}
        self._layer: Any = HiddenLayer(**weights)

    @property
    def hidden(self) -> HiddenLayer:
        """The layer as arrays."""
        return HiddenLayer(*(as_array(weight) for weight in self._layer))

    @hidden.setter
    def hidden(self, layer: HiddenLayer) -> None:
        for weight, array in zip(self._layer, layer, strict=True):
            weight.assign(array)

    def score(self, users: Tensor, items: Tensor) -> Tensor:
        """As in `EmbeddingModel`."""
        layer = self._layer
        of_users = self.multiply(self.users.vectors_of(users), ops.transpose(layer.of_users))
        of_items = self.multiply(self.items.vectors_of(items), ops.transpose(layer.of_items))
        units = ops.relu(of_users + of_items + layer.biases)
        return super().score(users, items) + ops.sum(units * layer.output, axis=-1)

    def score_vectors(self, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
        """As in `EmbeddingModel`."""
        scores: NDArray[np.float32] = super().score_vectors(users, items) + hidden_scores(users, items, self.hidden)
        return scores

    def best_items(self, user_idx: NDArray[np.intp], seen: IndexLists, k: int) -> NDArray[np.intp]:
        """As in `EmbeddingModel`."""
        users, items = self.ranking_vectors(user_idx)
        best = np.full((len(users), k), -1, np.intp)
        rows = max(1, _SCORES_AT_ONCE // len(items))
        for first in range(0, len(users), rows):
            part = users[first : first + rows]
            scores = part @ items.T + hidden_scores_of_all(part[:, :-1], items[:, :-1], self.hidden)
            for row, user in enumerate(range(first, first + len(part))):
                own = seen.indices[seen.indptr[user] : seen.indptr[user + 1]]
                scores[row, own] = -np.inf
                order = np.argsort(-scores[row], kind="stable")[: min(k, len(items) - len(own))]
                best[user, : len(order)] = order
        return best


def random_layer(units: int, dims: int, seed: int) -> HiddenLayer:
    """Weights that keep the scale of what comes in. He et al., ICCV 2015."""
    random = np.random.default_rng([seed, 3])
    of_users, of_items = (random.standard_normal((units, dims), np.float32) / np.sqrt(dims) for _ in range(2))
    output = random.standard_normal(units, np.float32) * np.sqrt(2.0 / units)
    return HiddenLayer(of_users, of_items, np.zeros(units, np.float32), output)
