"""What training leaves behind: plain arrays, and the one matrix product that scores with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.kernels.layout import Flags, Floats, item_columns, user_columns

_OF_USERS = ("user_vectors", "user_biases", "is_trained_user", "user_squares")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """A trained model of m users and n items as arrays; rows that are not trained are zeros.

    Shapes: `user_vectors` (m, d), `user_biases` (m,), `item_vectors` (n, d), `item_biases` (n,) float32; `popularity`
    (n,) float32, 0 for items nobody has and 1 for the most popular; `is_trained_user` (m,), `is_trained_item` (n,)
    bool; `is_mapped_item` (n,) bool, items that are not trained and have a vector by what they are like;
    `user_squares` (m, 2), `item_squares` (n, 2) float32, the summed squares of the gradients of vector and bias: how
    far each row has been trained, which a warm start continues. `hidden` is what the scores have beside one matrix
    product, of the architecture `neumf`.
    """

    user_vectors: Floats
    user_biases: Floats
    item_vectors: Floats
    item_biases: Floats
    offset: float
    popularity: Floats
    is_trained_user: Flags
    is_trained_item: Flags
    is_mapped_item: Flags
    user_squares: Floats
    item_squares: Floats
    hidden: HiddenLayer | None = None

    def __post_init__(self) -> None:
        m, n, d = self.n_users, self.n_items, self.embedding_dim
        shapes = {
            "user_vectors": (m, d), "user_biases": (m,), "is_trained_user": (m,), "user_squares": (m, 2),
            "item_vectors": (n, d), "item_biases": (n,), "is_trained_item": (n,), "item_squares": (n, 2),
            "is_mapped_item": (n,), "popularity": (n,),
        }  # fmt: skip
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    @property
    def n_users(self) -> int:
        """Users, trained or not."""
        return len(self.user_vectors)

    @property
    def n_items(self) -> int:
        """Items, trained or not."""
        return len(self.item_vectors)

    @property
    def embedding_dim(self) -> int:
        """Latent size d."""
        return int(self.item_vectors.shape[1])

    @property
    def is_scored_item(self) -> Flags:
        """The items that have a vector, (n,)."""
        return self.is_trained_item | self.is_mapped_item

    def scoring_vectors(self) -> tuple[Floats, Floats]:
        """Matrices (m, d + 3) and (n, d + 3), float32, whose product holds every user's score of every item.

        `kernels.layout` says what their columns are.
        """
        return self.user_matrix(), self.item_matrix()

    def user_matrix(self) -> Floats:
        """The users' side of `scoring_vectors`, (m, d + 3)."""
        constants = self.user_biases + np.float32(self.offset)
        return user_columns(self.user_vectors, constants, self.is_trained_user)

    def item_matrix(self) -> Floats:
        """The items' side of `scoring_vectors`, (n, d + 3)."""
        return item_columns(self.item_vectors, self.item_biases, self.popularity, self.is_scored_item)

    def without_users(self) -> Embeddings:
        """The same of no user at all."""
        # Copies, because views would keep what they are of in memory.
        none = {name: getattr(self, name)[:0].copy() for name in _OF_USERS}
        return replace(self, **none)


def untrained_embeddings(n_users: int, embedding_dim: int, item_counts: NDArray[np.int64]) -> Embeddings:
    """Nobody trained: everybody gets the popular items of `item_counts` (n,)."""
    n_items = len(item_counts)
    return Embeddings(
        user_vectors=np.zeros((n_users, embedding_dim), np.float32),
        user_biases=np.zeros(n_users, np.float32),
        item_vectors=np.zeros((n_items, embedding_dim), np.float32),
        item_biases=np.zeros(n_items, np.float32),
        offset=0.0,
        popularity=popularity_scores(item_counts),
        is_trained_user=np.zeros(n_users, bool),
        is_trained_item=np.zeros(n_items, bool),
        is_mapped_item=np.zeros(n_items, bool),
        user_squares=np.zeros((n_users, 2), np.float32),
        item_squares=np.zeros((n_items, 2), np.float32),
    )


def popularity_scores(item_counts: NDArray[Any]) -> Floats:
    """log(1 + count) / log(1 + largest count), (n,) between 0 and 1: the order of the counts, on a readable scale."""
    largest = item_counts.max(initial=0)
    scores: Floats = (np.log1p(item_counts) / np.log1p(largest if largest > 0 else 1)).astype(np.float32)
    return scores
