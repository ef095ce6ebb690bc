"""Puts the scorers of single models together from what a run has stored, and loads what others are made of."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_spark.blockwise.blocks import array_of, read_blocks
from recsys_spark.blockwise.files import MappedArray, distribute_array, save_array
from recsys_spark.blockwise.items import distribute_ids, distribute_items
from recsys_spark.blockwise.learned import LearnedSimilarity, distribute_similarity
from recsys_spark.blockwise.neighbors import find_neighbors, neighbor_count
from recsys_spark.blockwise.plan import Block, BlockMap, Blocks, MovedBlocks
from recsys_spark.blockwise.scorers import (
    ContentScorer,
    EmbeddingScorer,
    ItemVectors,
    ItemWeights,
    ItemWeightScorer,
    NeighborScorer,
    PopularityScorer,
    Scorer,
)
from recsys_spark.blockwise.similar import EmbeddedEntities, distribute_entities
from recsys_spark.blockwise.stored import stored_blocks
from recsys_spark.blockwise.tastes import distribute_tastes
from recsys_spark.blockwise.user_rows import ItemRange, RowSource, distribute_item_ranges, distribute_user_rows
from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.kernels.layout import COLUMNS_APART, item_columns
from recsys_spark.kernels.neighbor_scoring import NeighborMode
from recsys_spark.kernels.similarity import Similarity
from recsys_spark.model_sections import Loss
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.export import load_embeddings, read_manifest
from recsys_spark.tables import (
    ITEM_RULES,
    ITEMS,
    NEIGHBOR_BLOCKS,
    SELECTION_EMBEDDINGS,
    SELECTION_NEIGHBOR_BLOCKS,
    USER_BLOCKS,
    USER_EMBEDDINGS,
    USER_RULES,
    USERS,
    Table,
)

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

Fit = Literal["model", "selection"]
"""`model`: learned from everything, for the lists; `selection`: has not seen the hold-out, for the metrics."""

_TRAINED = ("block_id", "is_trained")
CONTENT_VECTORS = "content_embeddings.npy"
"""In the folder `content`."""

ITEM_VECTORS = "item_vectors.npy"
"""In the folder of a learned similarity."""

EMBEDDINGS: dict[Fit, Table] = {"model": USER_EMBEDDINGS, "selection": SELECTION_EMBEDDINGS}
NEIGHBORS: dict[Fit, Table] = {"model": NEIGHBOR_BLOCKS, "selection": SELECTION_NEIGHBOR_BLOCKS}


def popularity_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> PopularityScorer:
    """The same most popular items for everybody."""
    popularity, most = load_model(storage, fit).popularity, shard_bytes(settings)
    folder, factors = storage.scratch / f"{fit}-popularity", item_factors(storage, settings, fit)
    is_known = popularity > 0
    return PopularityScorer(
        distribute_items(storage.spark, popularity[:, None], is_known, folder, most, factors=factors)
    )


def item_factors(storage: RunStorage, settings: Settings, fit: Fit) -> NDArray[np.float32] | None:
    """What `[rules]` multiply the scores of items by, (items,), 0 for what is never listed; None where nothing changes.

    Rules are for the lists: what a fit is measured by, and blended with, it is without them.
    """
    if fit == "selection" or not settings.rules.is_on:
        return None
    table = ds.dataset(storage.fetch(ITEM_RULES, storage.scratch), format="parquet").to_table().sort_by("item_idx")
    is_listed = pc.equal(table.column("verdict"), "listed").to_numpy(zero_copy_only=False)
    factors: NDArray[np.float32] = np.where(is_listed, table.column("factor").to_numpy(), np.float32(0))
    return None if (factors == 1).all() else factors


def shared_factors(storage: RunStorage, settings: Settings, fit: Fit) -> MappedArray | None:
    """The same, handed to the executors."""
    factors = item_factors(storage, settings, fit)
    if factors is None:
        return None
    path = storage.scratch / f"{fit}-item-factors.npy"
    return distribute_array(storage.spark, save_array(path, factors))


def distribute_folder(storage: RunStorage, source: Path, scratch: Path) -> dict[str, MappedArray]:
    """Hand the arrays of a folder to the executors, by name."""
    scratch.mkdir(exist_ok=True)
    # Names of their own, because what is handed out gets one, and the folder may be the run's.
    named = [_linked(path, scratch / path.name) for path in sorted(source.glob("*.npy"))]
    return {path.stem: distribute_array(storage.spark, path) for path in named}


def _linked(source: Path, target: Path) -> Path:
    """The file under another name, without a copy where both are on one disk: nobody writes into either."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy(source, target)
    return target


def search_neighbors(storage: RunStorage, settings: Settings, hold_out: bool) -> BlockMap:
    """Each user's nearest users, from everything or without the hold-out."""
    neighbors = settings.neighbors
    source, scratch = _row_source(storage, hold_out), storage.scratch / f"rows-{hold_out}"
    rows = distribute_user_rows(storage.spark, source, neighbors.weighting, scratch, shard_bytes(settings))
    k = neighbor_count(neighbors.k, rows.n_users)
    similarity = Similarity(neighbors.similarity, neighbors.bandwidth)
    return find_neighbors(blocks_of(storage, USER_BLOCKS), rows, k, similarity)


def blocks_of(storage: RunStorage, *tables: Table) -> Blocks:
    """Block tables: read by the tasks where they can open the files, else by Spark."""
    folders = [folder for table in tables if (folder := storage.shared_folder(table)) is not None]
    if len(folders) == len(tables):
        return stored_blocks(storage.spark, folders)
    return MovedBlocks(tuple(storage.read(table) for table in tables))


def scored_blocks(storage: RunStorage, settings: Settings, fit: Fit, *tables: Table) -> Blocks:
    """Block tables of the users to score, for lists with what rules say of them."""
    ruled = (USER_RULES,) if fit == "model" and settings.rules.is_on else ()
    return blocks_of(storage, *tables, *ruled)


def _row_source(storage: RunStorage, hold_out: bool) -> RowSource:
    folder = storage.fetch(USER_BLOCKS, storage.scratch)
    return RowSource(folder, storage.count(USERS), storage.count(ITEMS), hold_out)


def published_items(storage: RunStorage, settings: Settings) -> tuple[ItemVectors, HiddenLayer | None, Loss]:
    """The items of a stored model, distributed, its hidden layer, and the loss it was trained with."""
    folder = storage.download("model", storage.scratch)
    model = load_embeddings(folder)
    return _distribute_model(storage, settings, "model", model, None), model.hidden, read_manifest(folder)["loss"]


def scored_items(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[ItemVectors, HiddenLayer | None]:
    """The items of a fit of this run, distributed, and its hidden layer."""
    model, factors = load_model(storage, fit), item_factors(storage, settings, fit)
    return _distribute_model(storage, settings, fit, model, factors), model.hidden


def embedded_users(storage: RunStorage, settings: Settings) -> EmbeddedEntities:
    """The users that have an embedding, distributed."""
    vectors, is_trained = _stored_users(storage, settings.model.embedding_dim)
    return _distribute_embedded(storage, settings, USERS, vectors, is_trained)


def _stored_users(storage: RunStorage, dims: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The vectors of the users that have one, (trained users, dims) in a mapped file, and who has, (users,)."""
    folder = storage.fetch(USER_EMBEDDINGS, storage.scratch)
    flags = {block.column("block_id")[0].as_py(): _is_trained(block) for block in read_blocks(folder, _TRAINED)}
    first = dict(zip(sorted(flags), np.cumsum([0, *(flags[block].sum() for block in sorted(flags))]), strict=False))
    is_trained = np.concatenate([flags[block] for block in sorted(flags)])
    path, shape = storage.scratch / "user-vectors.npy", (int(is_trained.sum()), dims)
    if shape[0] == 0:
        return np.zeros(shape, np.float32), is_trained
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for block in read_blocks(folder, (*_TRAINED, "vectors")):
        known, start = _is_trained(block), first[block.column("block_id")[0].as_py()]
        columns = array_of(block, "vectors", np.float32).reshape(len(known), -1)
        vectors[start : start + int(known.sum())] = columns[known, :dims]
    return vectors, is_trained


def _is_trained(block: Block) -> NDArray[np.bool_]:
    return array_of(block, "is_trained", np.uint8).astype(bool)


def embedded_items(storage: RunStorage, settings: Settings) -> EmbeddedEntities:
    """The items that have an embedding, distributed."""
    model = load_model(storage, "model")
    is_scored = model.is_scored_item
    return _distribute_embedded(storage, settings, ITEMS, model.item_vectors[is_scored], is_scored)


def _distribute_embedded(
    storage: RunStorage, settings: Settings, table: Table, vectors: NDArray[np.float32], is_trained: NDArray[np.bool_]
) -> EmbeddedEntities:
    scratch, name = storage.scratch / f"similar-{table.name}", table.name.removesuffix("s")
    ids = distribute_ids(storage.spark, storage.fetch(table, storage.scratch), name, scratch, kept=is_trained)
    return distribute_entities(storage.spark, vectors, ids, scratch, shard_bytes(settings))


def load_model(storage: RunStorage, fit: Fit) -> Embeddings:
    """The embedding model, without its users."""
    return load_embeddings(storage.download(fit, storage.scratch))


def _distribute_model(
    storage: RunStorage, settings: Settings, fit: Fit, model: Embeddings, factors: NDArray[np.float32] | None
) -> ItemVectors:
    folder = storage.scratch / f"{fit}-items"
    vectors, most = model.item_matrix(), shard_bytes(settings)
    return distribute_items(storage.spark, vectors, model.is_scored_item, folder, most, COLUMNS_APART, factors)


def shard_bytes(settings: Settings) -> int:
    """The largest candidate file."""
    return settings.matrix.shard_mb << 20


def embedding_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """By the embedding model."""
    items, _ = scored_items(storage, settings, fit)
    return scored_blocks(storage, settings, fit, USER_BLOCKS, EMBEDDINGS[fit]), EmbeddingScorer(items)


def neighbor_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """By what neighbors have."""
    source, ranges = row_ranges(storage, settings, fit)
    fallback, mode = popularity_scorer(storage, settings, fit), neighbor_mode(settings)
    learned = learned_similarity(storage, settings, fit, source)
    factors, shrinkage = shared_factors(storage, settings, fit), settings.recommend.shrinkage
    scorer = NeighborScorer(ranges, fit == "selection", fallback, mode, shrinkage, learned, factors)
    return scored_blocks(storage, settings, fit, USER_BLOCKS, NEIGHBORS[fit]), scorer


def row_ranges(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[RowSource, tuple[ItemRange, ...]]:
    """All users' rows, where they come from and as the executors get them."""
    hold_out = fit == "selection"
    source, scratch = _row_source(storage, hold_out), storage.scratch / f"ranges-{hold_out}"
    return source, distribute_item_ranges(storage.spark, source, scratch, shard_bytes(settings))


def known_items(storage: RunStorage, name: str) -> NDArray[np.bool_]:
    """The items that a model, or a component of a blend, scores, (items,): from the fit that has seen everything."""
    source = name.removeprefix("session_")
    if source == "content":
        return np.asarray(load_content(storage).any(axis=1))
    if source in ("ease", "graph_filter"):
        folder = storage.download(f"model-{source}", storage.scratch)
        return np.asarray(np.load(folder / "places.npy", allow_pickle=False) >= 0)
    if source == "vae":
        folder = storage.download("model-vae", storage.scratch)
        return np.asarray(np.load(folder / "is_known.npy", allow_pickle=False))
    model = load_model(storage, "model")
    return model.is_scored_item if source == "embedding" else model.popularity > 0


def content_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """By what items are like."""
    vectors, scratch = load_content(storage), storage.scratch / f"{fit}-content"
    is_described = np.asarray(vectors.any(axis=1))
    popularity = load_model(storage, fit).popularity
    columns = item_columns(vectors, np.zeros(len(vectors), np.float32), popularity, is_described)
    factors, most = item_factors(storage, settings, fit), shard_bytes(settings)
    items = distribute_items(storage.spark, columns, is_described, scratch, most, COLUMNS_APART, factors)
    tastes = distribute_tastes(storage.spark, vectors, settings.content.half_life_days, fit == "selection", scratch)
    return scored_blocks(storage, settings, fit, USER_BLOCKS), ContentScorer(items, tastes)


def item_weight_scorer(storage: RunStorage, settings: Settings, fit: Fit) -> tuple[Blocks, Scorer]:
    """By a linear model of items by items."""
    tier, fallback = settings.recommend.model, popularity_scorer(storage, settings, fit)
    weights, factors = distribute_item_weights(storage, fit, tier), shared_factors(storage, settings, fit)
    scorer = ItemWeightScorer(tier, weights, fit == "selection", fallback, factors)
    return scored_blocks(storage, settings, fit, USER_BLOCKS), scorer


def distribute_item_weights(storage: RunStorage, fit: Fit, model: str) -> ItemWeights:
    """Hand the weights of items by items, and positions both ways, to the executors."""
    source = storage.download(f"{fit}-{model}", storage.scratch)
    return ItemWeights(**distribute_folder(storage, source, storage.scratch / f"{fit}-{model}"))


def load_content(storage: RunStorage) -> NDArray[np.float32]:
    """The content embeddings of all items, (items, d), of length 1 or 0."""
    vectors: NDArray[np.float32] = np.load(
        storage.download("content", storage.scratch) / CONTENT_VECTORS, allow_pickle=False
    )
    return vectors


def neighbor_mode(settings: Settings) -> NeighborMode:
    """Neighbors predict a rating by their mean, and else how likely an item is by their sum."""
    return "mean" if settings.feedback.kind == "explicit" else "sum"


def learned_similarity(
    storage: RunStorage, settings: Settings, fit: Fit, source: RowSource
) -> LearnedSimilarity | None:
    """How much neighbors count beyond their similarity, where that is learned."""
    if not settings.neighborhood.enabled:
        return None
    folder = storage.download(f"{fit}-neighborhood", storage.scratch)
    vectors = np.load(folder / ITEM_VECTORS, allow_pickle=False)
    scratch = storage.scratch / f"{fit}-similarity"
    return distribute_similarity(storage.spark, source, vectors, settings.neighborhood.temperature, scratch)
