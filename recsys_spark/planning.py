"""What a night will take, before it takes it: shards, tasks, bytes, memory, time; and what cannot fit.

The formulas are explained in docs/scaling.md and measured by `benchmarks/scaling.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from recsys_spark.blockwise.blocks import nothing
from recsys_spark.blockwise.neighbors import BLOCKS_AT_ONCE, MOST_NEIGHBORS_AT_ONCE, neighbor_count
from recsys_spark.blockwise.plan import TASKS_A_CORE
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.model_sections import SIMILARITY_BATCH_USERS
from recsys_spark.storage.filesystem import names_local_folder

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
CALIBRATION_S = 1.0  # for each of the two kernels
_CALIBRATION_USERS, _CALIBRATION_ITEMS, _CALIBRATION_CANDIDATES = 512, 20_000, 8_192


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


@dataclass(frozen=True)
class Speeds:
    """Seconds of one core for one score (a user, an item) and for one distance (two users)."""

    score_s: float
    distance_s: float


@dataclass(frozen=True)
class StepPlan:
    """What a step takes. `disk_bytes` lie on the driver's disk and, but for those of `train`, on each host."""

    step: str
    tasks: int
    shards: int
    disk_bytes: int
    worker_bytes: int
    driver_bytes: int
    seconds: float | None


def plan_night(settings: Settings, workload: Workload, speeds: Speeds, cores: int) -> list[StepPlan]:
    """The steps that grow with users, items or interactions."""
    return list(_steps(settings, workload, speeds, cores))


def refusals(settings: Settings, plans: list[StepPlan]) -> Iterator[str]:
    """What does not fit the budgets of `[plan]`, each with the settings that would change it."""
    for plan in plans:
        for setting, needed, budget, unit, remedy in _budgets(settings, plan):
            if needed > budget:
                yield f"{plan.step} needs {needed:,.1f} {unit}, over plan.{setting} = {budget:,g}: {remedy}"


def _budgets(settings: Settings, plan: StepPlan) -> Iterator[tuple[str, float, float, str, str]]:
    budget, hours = settings.plan, (plan.seconds or 0.0) / 3600.0
    remedy = "make matrix.block_users smaller, or the budget larger"
    yield "worker_memory_mb", plan.worker_bytes / 2**20, budget.worker_memory_mb, "MB a worker", remedy
    remedy = "lower content.max_terms, content.embedding_dim or content.batch_size"
    if plan.step == "embed_content":
        yield "driver_memory_mb", plan.driver_bytes / 2**20, budget.driver_memory_mb, "MB on the driver", remedy
        return
    remedy = (
        f"{'set model.max_trained_users, ' if settings.model.can_fold_in else ''}make model.embedding_dim or "
        "model.batch_size smaller, or raise model.min_user_interactions and model.min_item_interactions"
    )
    if settings.neighborhood.enabled:
        remedy += ", or lower neighborhood.max_trained_users"
    if settings.recommend.model == "ease":
        remedy += ", or use another model than 'ease'"
    yield "driver_memory_mb", plan.driver_bytes / 2**20, budget.driver_memory_mb, "MB on the driver", remedy
    remedy = "give the hosts more disk"
    yield "disk_gb", plan.disk_bytes / 2**30, budget.disk_gb, "GB of disk", remedy
    yield "max_hours", hours, budget.max_hours, "hours", _ways_to_save(plan.step)


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
    return int(TRAINING_BYTES + of_items + (most + numbers) * (32 * dims + 20 * content.batch_size))


def driver_bytes_of_cold_items(settings: Settings, items: int) -> int:
    """What it holds more, beside a trained model, while items that are not trained get their vectors by content."""
    content, dims = settings.content, settings.model.embedding_dim
    if not content.attributes or not content.cold_items:
        return 0
    features = min(content.max_terms, TERMS_OF_AN_ITEM * items) + _numbers_of_an_item(content)
    of_items = items * (8 * TERMS_OF_AN_ITEM + 4 * _numbers_of_an_item(content) + 12 * dims)
    return int(of_items + features * (16 * (dims + 1) + 12 * 64))


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


def measure_speeds(settings: Settings, workload: Workload) -> Speeds:
    """Time both kernels for a second each on one core, on synthetic vectors and rows of this workload's density."""
    random = np.random.default_rng(0)
    with threadpool_limits(1):
        return Speeds(_score_seconds(settings, workload, random), _distance_seconds(settings, workload, random))


def _steps(settings: Settings, workload: Workload, speeds: Speeds, cores: int) -> Iterator[StepPlan]:
    users, items, pairs = workload.users, workload.items, workload.interactions
    dims, tasks = settings.model.embedding_dim, TASKS_A_CORE * cores
    block_users, shard_bytes = settings.matrix.block_users, settings.matrix.shard_mb << 20
    is_local = names_local_folder(settings.storage.root)
    if settings.content.attributes:
        held = driver_bytes_of_content(settings.content, items)
        yield StepPlan("embed_content", 0, 0, 0, 0, held, None)
    if settings.neighbors.enabled:
        k = neighbor_count(settings.neighbors.k, users)
        shards = max(1, math.ceil(8 * pairs / shard_bytes))
        worker = worker_bytes_of_search(
            block_users, items, users / shards, workload.interactions_a_user, k, users / tasks, is_local
        )
        seconds = users**2 * speeds.distance_s / cores
        yield StepPlan("neighbors", tasks, shards, 8 * pairs + 8 * users, worker, 16 * users, seconds)
    has_weights = settings.recommend.model == "ease"
    training = max(
        driver_bytes_of_training(settings.model, workload) + driver_bytes_of_cold_items(settings, items),
        driver_bytes_of_similarity(settings, workload),
        16 * items**2 + 8 * pairs if has_weights else 0,
    )
    cells = cells_of_segments(settings, workload)
    mapped = mapped_bytes_of_training(settings.model, workload) + 8 * cells
    yield StepPlan("train", 0, 0, mapped, 0, training, None)
    if settings.model.max_trained_users is not None and settings.model.max_trained_users < users:
        handed_out = 4 * items * (dims + 1)
        block = block_users * (29 * workload.interactions_a_user + 16 * (dims + EXTRA_COLUMNS))
        worker = int(WORKER_BYTES + block + 4 * (dims + 1024) * dims + 16 * dims**2)
        yield StepPlan("fold in", tasks, 1, handed_out, worker, handed_out, None)
    vectors = 4 * items * (dims + EXTRA_COLUMNS)
    a_user, k = workload.interactions_a_user, settings.recommend.top_k
    worker = worker_bytes_of_scoring(block_users, dims, a_user, k, users / tasks, is_local)
    shards = max(1, math.ceil(vectors / shard_bytes))
    seconds = users * items * speeds.score_s / cores
    mapped = 4 * users * settings.neighborhood.embedding_dim if settings.neighborhood.enabled else 0
    if cells:
        mapped += 8 * min(cells, pairs) + 4 * users
    if has_weights:
        mapped, worker = mapped + 4 * items**2, worker + SCORES_BYTES
    if settings.diversity.is_on:
        mapped += mapped_bytes_of_diversity(settings, items)
        worker += 12 * block_users * settings.diversity.pool(k)
    yield StepPlan("recommend", tasks, shards, vectors + 8 * items + mapped, worker, vectors, seconds)
    for is_wanted, name, count in ((settings.similar.users, "users", users), (settings.similar.items, "items", items)):
        if is_wanted:
            embedded = 4 * count * (dims + 1)
            shards = max(1, math.ceil(embedded / shard_bytes))
            worker = worker_bytes_of_scoring(1024, dims, 0.0, settings.similar.top_k, count / tasks, True)
            seconds = count**2 * speeds.score_s / cores
            yield StepPlan(f"similar {name}", tasks, shards, embedded, worker, embedded, seconds)


def _ways_to_save(step: str) -> str:
    ways = {
        "neighbors": "the work grows with the square of the users; set neighbors.enabled = false",
        "similar users": "the work grows with the square of the users; set similar.users = false",
        "similar items": "the work grows with the square of the items; set similar.items = false",
    }
    return ways.get(step, "use more cores, or make model.embedding_dim smaller")


def _score_seconds(settings: Settings, workload: Workload, random: np.random.Generator) -> float:
    dims = settings.model.embedding_dim + EXTRA_COLUMNS
    n_items = min(max(workload.items, 1), _CALIBRATION_ITEMS)
    users, items = (random.standard_normal((rows, dims), np.float32) for rows in (_CALIBRATION_USERS, n_items))
    k = min(settings.recommend.top_k, n_items)
    return _seconds(lambda: score_top_k(users, items, nothing(len(users)), k)) / (len(users) * n_items)


def _distance_seconds(settings: Settings, workload: Workload, random: np.random.Generator) -> float:
    n_users = min(max(workload.users, 2), _CALIBRATION_CANDIDATES)
    lengths = random.poisson(workload.interactions_a_user, n_users)
    popularity = np.cumsum(1.0 / (np.arange(max(workload.items, 1)) + 10.0) ** 0.8)
    drawn = np.searchsorted(popularity, random.random(lengths.sum()) * popularity[-1])
    keys = np.unique(np.repeat(np.arange(n_users), lengths) * popularity.size + drawn)
    indptr = np.searchsorted(keys, np.arange(n_users + 1) * popularity.size).astype(np.int64)
    values = (random.integers(1, 6, keys.size) / 5).astype(np.float32)
    rows = CsrRows(indptr, (keys % popularity.size).astype(np.int32), values, popularity.size)
    queries = rows.slice_rows(0, min(n_users, 4 * _CALIBRATION_USERS))
    k = neighbor_count(settings.neighbors.k if settings.neighbors.k != "all" else 100, n_users)
    ids = np.arange(queries.n_rows)
    return _seconds(lambda: nearest_rows(queries, ids, rows, 0, k)) / (queries.n_rows * n_users)


def _seconds(work: Callable[[], object]) -> float:
    """The median of as many runs as a second holds, at least one, after one that compiles."""
    work()
    taken: list[float] = []
    while sum(taken) < CALIBRATION_S:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
