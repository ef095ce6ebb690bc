"""Between the model's tables, which hold trained rows only, and embeddings, which hold all users and items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.layout import Flags, Floats
from recsys_spark.models.embedding import EmbeddingModel, EmbeddingTower, as_array
from recsys_spark.models.embeddings import Embeddings, popularity_scores
from recsys_spark.models.interactions import TrainedPart
from recsys_spark.models.neumf import NeumfModel
from recsys_spark.models.optimizers import RowwiseAdagrad
from recsys_spark.models.two_tower import ItemTower, TwoTowerModel

INIT_STD = 0.1
# Below 1, because squares that only grew would end all learning after some weeks of warm starts.
CARRIED_SQUARES = 0.8


class Rows(NamedTuple):
    """One side of the model: `vectors` (r, d), `biases` (r,), `squares` (r, 2) as in `Embeddings`."""

    vectors: Floats
    biases: Floats
    squares: Floats


class Start(NamedTuple):
    """Vectors to start from, users (trained users, d) and items (trained items, d)."""

    users: Floats
    items: Floats


def start_tables(
    model: EmbeddingModel, part: TrainedPart, seed: int, warm_start: Embeddings | None, start: Start | None = None
) -> None:
    """Give every row its start and no bias: that of the earlier fit if it trained the row, else `start`, else random.

    Raises:
        ValueError: the earlier fit has another latent size, or more users or items than the pairs.
    """
    random = np.random.default_rng([seed, 1])
    users = _random_rows(random, len(part.users), model.users.embedding_dim)
    items = _random_rows(random, len(part.items), model.items.embedding_dim)
    for rows, vectors in zip((users, items), start or (), strict=False):
        # As large as random ones, because the losses expect no other scale; all 0 they would never learn.
        size = np.sqrt(np.mean(np.square(vectors)))
        if size > 0:
            rows.vectors[:] = vectors * np.float32(INIT_STD / size)
    if warm_start is not None:
        _require_fitting(warm_start, part, model.users.embedding_dim)
        if not isinstance(model, TwoTowerModel):  # whose users' own vectors are not known from what they scored by
            _continue(users, _user_rows(warm_start), warm_start.is_trained_user, part.users)
        _continue(items, _item_rows(warm_start), warm_start.is_trained_item, part.items)
    if not model.users.table.trainable:
        users.vectors[:] = 0.0
    if model.optimizer is not None:
        model.optimizer.build(model.trainable_weights)
    _fill(model.users, users, model.optimizer)
    _fill(model.items, items, model.optimizer)
    if isinstance(model.items, ItemTower):
        of_features = _random_rows(np.random.default_rng([seed, 5]), model.items.n_features, model.items.embedding_dim)
        model.items.start(items.vectors, items.biases, of_features.vectors)


def collect_embeddings(model: EmbeddingModel, part: TrainedPart) -> Embeddings:
    """Copy the model's tables into arrays of all users and items."""
    users = _spread(_rows(model.users, model.read_users(), model.optimizer), part.users, part.all_pairs.n_users)
    items = _spread(_rows(model.items, model.items.read(), model.optimizer), part.items, part.all_pairs.n_items)
    return Embeddings(
        user_vectors=users.vectors,
        user_biases=users.biases,
        item_vectors=items.vectors,
        item_biases=items.biases,
        offset=float(as_array(model.offset)),
        popularity=popularity_scores(part.all_pairs.item_counts()),
        is_trained_user=_flags(part.users, part.all_pairs.n_users),
        is_trained_item=_flags(part.items, part.all_pairs.n_items),
        is_mapped_item=np.zeros(part.all_pairs.n_items, bool),
        user_squares=users.squares,
        item_squares=items.squares,
        hidden=model.hidden if isinstance(model, NeumfModel) else None,
    )


def _random_rows(random: np.random.Generator, rows: int, embedding_dim: int) -> Rows:
    vectors = random.standard_normal((rows, embedding_dim), dtype=np.float32)
    vectors *= np.float32(INIT_STD)
    return Rows(vectors, np.zeros(rows, np.float32), np.zeros((rows, 2), np.float32))


def _require_fitting(warm_start: Embeddings, part: TrainedPart, embedding_dim: int) -> None:
    known = (warm_start.n_users, warm_start.n_items, warm_start.embedding_dim)
    if known[0] > part.all_pairs.n_users or known[1] > part.all_pairs.n_items or known[2] != embedding_dim:
        raise ValueError(
            f"warm_start has {known[0]} users, {known[1]} items and {known[2]} dimensions; to continue it, there must "
            f"be as many or more, got {part.all_pairs.n_users} and {part.all_pairs.n_items}, and {embedding_dim}"
        )


def _user_rows(embeddings: Embeddings) -> Rows:
    return Rows(embeddings.user_vectors, embeddings.user_biases, embeddings.user_squares)


def _item_rows(embeddings: Embeddings) -> Rows:
    return Rows(embeddings.item_vectors, embeddings.item_biases, embeddings.item_squares)


def _continue(start: Rows, earlier: Rows, is_trained: Flags, positions: NDArray[np.intp]) -> None:
    """Overwrite the start of the rows that the earlier fit trained."""
    known = positions[positions < len(is_trained)]  # positions rise, so these are the first rows of `start`
    rows = np.flatnonzero(is_trained[known])
    start.vectors[rows] = earlier.vectors[known[rows]]
    start.biases[rows] = earlier.biases[known[rows]]
    start.squares[rows] = CARRIED_SQUARES * earlier.squares[known[rows]]


def _fill(tower: EmbeddingTower, rows: Rows, optimizer: RowwiseAdagrad | None) -> None:
    tower.assign(rows.vectors, rows.biases)
    if optimizer is not None and tower.table.trainable:
        optimizer.squares_of(tower.table).assign(rows.squares)


def _rows(tower: EmbeddingTower, read: tuple[Floats, Floats], optimizer: RowwiseAdagrad | None) -> Rows:
    """What was read of a tower, and how far it has been trained."""
    squares = np.zeros((len(read[1]), 2), np.float32)
    if optimizer is not None and tower.table.trainable:
        squares[:] = as_array(optimizer.squares_of(tower.table))
    if tower.is_unit:
        # Kept at length one, a vector has gradients so much larger, and turns so much further by them.
        vectors = tower.vectors()
        squares[:, 0] *= np.square(np.einsum("rd,rd->r", vectors, vectors))
    return Rows(*read, squares)


def _spread(rows: Rows, positions: NDArray[np.intp], size: int) -> Rows:
    """The rows at their positions among `size`, zeros elsewhere."""
    spread = Rows(*(np.zeros((size, *array.shape[1:]), np.float32) for array in rows))
    for array, target in zip(rows, spread, strict=True):
        target[positions] = array
    return spread


def _flags(positions: NDArray[np.intp], size: int) -> Flags:
    flags = np.zeros(size, dtype=bool)
    flags[positions] = True
    return flags
