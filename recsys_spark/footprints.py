"""What a night holds, in bytes, by how much there is of users, items and interactions.

The formulas are explained in docs/scaling.md and measured by `benchmarks/scaling.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys_spark.blockwise.neighbors import BLOCKS_AT_ONCE, MOST_NEIGHBORS_AT_ONCE, neighbor_count
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.model_sections import SIMILARITY_BATCH_USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.content_sections import ContentSettings
    from recsys_spark.model_sections import ModelSettings

WORKER_BYTES = 160 << 20  # Python with NumPy, Numba, pandas and PyArrow, and the compiled kernels
BATCH_BYTES = 64 << 20  # the most that Spark hands over at once, where it reads the blocks
WRITER_BYTES = 64 << 20  # a row group and what it is encoded from
TERMS_OF_AN_ITEM = 200  # words and categories, taken to be so many
CATEGORIES_OF_AN_ITEM = 4  # taken to be so many
SCORES_BYTES = 48 << 20  # of some users with all items, by weights of items, and what they are made of
TRAINING_BYTES = 40 << 20  # parts of what is computed over all pairs
VAE_BYTES = 160 << 20  # what its training holds with hardly any items
RANKED_USERS = 64  # at once


@dataclass(frozen=True)
class Workload:
    """How much there is: users, items, user-item pairs."""

    users: int
    items: int
    interactions: int

    @property
    def interactions_a_user(self) -> float:
        """The mean."""
        return self.interactions / max(self.users, 1)


def worker_bytes_of_scoring(
    block_users: int, dims: int, interactions_a_user: float, k: int, users_a_task: float, is_local: bool
) -> int:
    """Private memory of a worker that scores blocks; what grows with the users of a task is bounded."""
    block = block_users * (29 * interactions_a_user + 16 * (dims + EXTRA_COLUMNS) + 12 * k)
    # On local roots a task reads the blocks themselves, one at a time.
    a_user = 0.0 if is_local else 5 * interactions_a_user + 4 * (dims + EXTRA_COLUMNS)
    batch, writer = min(BATCH_BYTES, users_a_task * a_user), min(WRITER_BYTES, users_a_task * 48 * k)
    return int(WORKER_BYTES + batch + writer + (4 << 20) + block)


def worker_bytes_of_search(
    block_users: int,
    items: int,
    users_a_shard: float,
    interactions_a_user: float,
    k: int,
    users_a_task: float,
    is_local: bool,
) -> int:
    """Private memory of a worker that searches neighbors: by user of a shard 16 bytes, or 0.5 GB for 32 million."""
    together = min(users_a_task, block_users * (BLOCKS_AT_ONCE if k <= MOST_NEIGHBORS_AT_ONCE else 1))
    lists = together * (28 * interactions_a_user + 21 * k + 900)
    batch, writer = 0 if is_local else BATCH_BYTES, min(WRITER_BYTES, users_a_task * 48 * k)
    return int(WORKER_BYTES + batch + writer + (13 << 20) + lists + 16 * users_a_shard + 36 * items)


def driver_bytes_of_training(model: ModelSettings, workload: Workload) -> int:
    """What the driver's Python holds beside its libraries while it trains."""
    users, most = workload.users, model.max_trained_users
    trained = users if most is None else min(users, most)
    rows = trained + workload.items
    drawing = TRAINING_BYTES + (21 * users if trained < users else 0)
    if model.is_closed_form:
        tables = 5 if model.loss == "spectral" else 4  # of which some are passed from step to step
        return tables * 4 * rows * (model.embedding_dim + EXTRA_COLUMNS) + drawing
    # Rows are whole cache lines, with two columns for biases where there are some, and two squares each.
    table = 4 * rows * (16 * math.ceil((model.embedding_dim + (0 if model.is_cosine else 2)) / 16) + 2)
    tables = 8 if model.starts_from_spectrum else 5
    pairs = int(8 * workload.interactions_a_user * trained)
    features = 128 * workload.items if model.item_features else 0
    return tables * table + pairs + features + drawing + _bytes_of_shared_negatives(model, workload)


def driver_bytes_of_content(content: ContentSettings, items: int) -> int:
    """What the driver's Python holds beside its libraries while it learns what items are like.

    Vectors made elsewhere are taken to have as many numbers as the embeddings.
    """
    dims, most = content.embedding_dim, min(content.max_terms, TERMS_OF_AN_ITEM * items)
    numbers = _numbers_of_an_item(content)
    of_items = items * (8 * TERMS_OF_AN_ITEM + 4 * (numbers + dims))
    return int(TRAINING_BYTES + of_items + (most + numbers) * (64 * dims + 56 * content.batch_size))


def driver_bytes_of_cold_items(settings: Settings, items: int) -> int:
    """What it holds more, beside a trained model, while items that are not trained get their vectors by content."""
    content, dims = settings.content, settings.model.embedding_dim
    if not content.attributes or not content.cold_items:
        return 0
    features = min(content.max_terms, TERMS_OF_AN_ITEM * items) + _numbers_of_an_item(content)
    of_items = items * (24 * TERMS_OF_AN_ITEM + 8 * _numbers_of_an_item(content) + 16 * (dims + 1))
    return int(of_items + 24 * features * (dims + 1))


def _numbers_of_an_item(content: ContentSettings) -> int:
    return len(content.numbers) + content.embedding_dim * (len(content.vectors) + bool(content.text_encoder))


def mapped_bytes_of_training(model: ModelSettings, workload: Workload) -> int:
    """Disk of the driver for pairs that are mapped while it trains: all, the trained ones, and a matrix of these."""
    users = min(workload.users, model.max_trained_users or workload.users)
    return int(28 * workload.interactions_a_user * users)


def mapped_bytes_of_diversity(settings: Settings, items: int) -> int:
    """Disk for what items are compared by, and their categories, where lists are re-ranked."""
    dims = settings.content.embedding_dim if settings.content.attributes else settings.model.embedding_dim
    return items * (4 * dims + (8 + 4 * CATEGORIES_OF_AN_ITEM if settings.diversity.category else 0))


def _bytes_of_shared_negatives(model: ModelSettings, workload: Workload) -> int:
    """Of the scores of a batch's users with its negatives; users differ, so that some batches hold twice the mean."""
    if not model.is_trained_by_user:
        return 0
    users = min(model.pairs_in_batch, 2.0 * model.pairs_in_batch / max(workload.interactions_a_user, 1.0))
    in_batch = model.pairs_in_batch if model.in_batch_negatives else 0
    negatives = workload.items if model.loss == "softmax" else model.sampled_negatives + in_batch
    return int(16 * min(users, workload.users) * negatives)


def driver_bytes_of_similarity(settings: Settings, workload: Workload) -> int:
    """What the driver's Python holds while it learns how much neighbors count."""
    chosen = settings.neighborhood
    if not chosen.enabled:
        return 0
    users = min(workload.users, chosen.max_trained_users)
    k = neighbor_count(settings.neighbors.k, workload.users)
    of_users = users * (60 * workload.interactions_a_user + 40 * k + 8 * chosen.embedding_dim)
    of_a_batch = SIMILARITY_BATCH_USERS * k * (8 * workload.interactions_a_user + 4 * chosen.embedding_dim)
    drawing = 21 * workload.users if users < workload.users else 0
    return int(of_users + of_a_batch + drawing + 12 * chosen.embedding_dim * workload.items)


def cells_of_segments(settings: Settings, workload: Workload) -> int:
    """Counts of items by segment, with as many segments as there can be: 8 bytes each on the driver's disk."""
    chosen = settings.popularity
    if chosen.segment is None:
        return 0
    return min(chosen.max_segments, workload.users // chosen.min_segment_users) * workload.items


def driver_bytes_of_item_models(settings: Settings, workload: Workload) -> int:
    """What it holds while it solves a linear model of items by items: the larger one."""
    bytes_of_two = {"ease": 12, "graph_filter": 8}
    largest = max((bytes_of_two[name] for name in settings.item_models), default=0)
    return largest * workload.items**2 + 5_120 * workload.items + 8 * workload.interactions if largest else 0


def driver_bytes_of_vae(settings: Settings, workload: Workload) -> int:
    """What it holds while it trains the autoencoder of what users have."""
    chosen = settings.vae
    if "vae" not in settings.components:
        return 0
    users = min(workload.users, chosen.max_trained_users)
    of_items = workload.items * (20 * (chosen.hidden_units + chosen.embedding_dim) + 40 * chosen.batch_users)
    return int(VAE_BYTES + of_items + 8 * workload.interactions_a_user * users)


def dims_of_lists(settings: Settings) -> int:
    """Columns of the item vectors that lists are products with."""
    model, content = settings.model.embedding_dim + EXTRA_COLUMNS, settings.content.embedding_dim
    if not settings.components:
        return model
    spaces = {name.removeprefix("session_") for name in settings.components}
    vae = settings.vae.embedding_dim + 1
    widths = {"embedding": settings.model.embedding_dim + 1, "content": content, "popularity": 1, "vae": vae}
    return max(1, sum(width for space, width in widths.items() if space in spaces))


def mapped_bytes_of_lists(settings: Settings, workload: Workload, segment_cells: int) -> int:
    """Disk of each host for what lists are made of, beside the item vectors."""
    users, items = workload.users, workload.items
    mapped = 4 * users * settings.neighborhood.embedding_dim if settings.neighborhood.enabled else 0
    mapped += 4 * items**2 * len(settings.item_models)
    if "vae" in settings.components:
        mapped += 4 * items * settings.vae.hidden_units
    if settings.uses_neighbors:
        mapped += 8 * workload.interactions + 8 * users
    for session, dims in (("session_embedding", settings.model.embedding_dim + 1), ("content", 0)):
        mapped += 4 * items * dims * (session in settings.components)
    sides = ("content", "session_content")
    mapped += 4 * items * settings.content.embedding_dim * sum(side in settings.components for side in sides)
    if segment_cells:
        mapped += 8 * min(segment_cells, workload.interactions) + 4 * users
    if settings.diversity.is_on:
        mapped += mapped_bytes_of_diversity(settings, items)
    if settings.reasons.enabled and (settings.recommend.model == "embedding" or "embedding" in settings.components):
        mapped += 4 * items * settings.model.embedding_dim
    if settings.reasons.enabled and "vae" in settings.components:
        mapped += 4 * items * settings.vae.embedding_dim
    return mapped


def worker_bytes_of_lists(settings: Settings) -> int:
    """What a worker that makes lists holds beside one that scores by a product alone."""
    scored = {"neighbors", "ease", "graph_filter", "session_ease"} & set(settings.components)
    held = SCORES_BYTES * (2 if scored else bool(settings.item_models))
    if settings.ranker.enabled and settings.components:
        candidates = max(settings.hybrid.candidates, settings.recommend.top_k) * len(settings.components)
        held += 4 * RANKED_USERS * candidates * (2 * len(settings.components) + 16)
    if settings.diversity.is_on:
        held += 12 * settings.matrix.block_users * settings.diversity.pool(settings.recommend.top_k)
    return held + bytes_of_reasons(settings)


def bytes_of_reasons(settings: Settings) -> int:
    """What a worker holds of the terms of listed items, and of a blend's components for each."""
    if not settings.reasons.enabled:
        return 0
    listed = settings.matrix.block_users * settings.recommend.top_k
    return listed * (24 * (settings.reasons.items + 2) + 8 * len(settings.components))


def driver_bytes_of_blend(settings: Settings) -> int:
    """What the driver's Python holds while it learns a blend: candidates, and with a ranking stage their features."""
    components = len(settings.components)
    candidates = settings.hybrid.validation_users * settings.hybrid.candidates * components
    return candidates * ((40 + 20 * components) + (24 * (components + 6) if settings.ranker.enabled else 0))
