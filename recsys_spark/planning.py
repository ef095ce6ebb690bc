"""What a night will take, before it takes it: shards, tasks, bytes, memory, time; and what cannot fit.

The formulas are explained in docs/scaling.md and measured by `benchmarks/scaling.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recsys_spark.blockwise.blocks import nothing
from recsys_spark.blockwise.neighbors import neighbor_count
from recsys_spark.blockwise.plan import TASKS_A_CORE
from recsys_spark.footprints import (
    WORKER_BYTES,
    Workload,
    cells_of_segments,
    dims_of_lists,
    driver_bytes_of_blend,
    driver_bytes_of_cold_items,
    driver_bytes_of_content,
    driver_bytes_of_item_models,
    driver_bytes_of_similarity,
    driver_bytes_of_training,
    driver_bytes_of_vae,
    mapped_bytes_of_lists,
    mapped_bytes_of_training,
    worker_bytes_of_lists,
    worker_bytes_of_scoring,
    worker_bytes_of_search,
)
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.distances import nearest_rows
from recsys_spark.kernels.layout import EXTRA_COLUMNS
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.threads import one_thread
from recsys_spark.storage.filesystem import names_local_folder

if TYPE_CHECKING:
    from recsys_spark.config import Settings

CALIBRATION_S = 1.0  # for the kernel of scores, and twice for that of distances
_CALIBRATION_USERS, _CALIBRATION_ITEMS, _CALIBRATION_CANDIDATES = 512, 20_000, 8_192


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
    remedy = _ways_to_hold_less(settings, plan.step)
    yield "driver_memory_mb", plan.driver_bytes / 2**20, budget.driver_memory_mb, "MB on the driver", remedy
    yield "disk_gb", plan.disk_bytes / 2**30, budget.disk_gb, "GB of disk", "give the hosts more disk"
    yield "max_hours", hours, budget.max_hours, "hours", _ways_to_save(plan.step)


def _ways_to_hold_less(settings: Settings, step: str) -> str:
    """What makes a step take less memory of the driver."""
    if step == "train":
        return _ways_to_train_in_less(settings)
    ways = {
        "neighbors": "set neighbors.enabled = false",
        "embed_content": "lower content.max_terms, content.embedding_dim or content.batch_size",
        "blend": "lower hybrid.validation_users or hybrid.candidates, or make model.embedding_dim smaller",
        "similar users": "set similar.users = false, or make model.embedding_dim smaller",
        "similar items": "set similar.items = false, or make model.embedding_dim smaller",
    }
    return ways.get(step, "make model.embedding_dim smaller")


def _ways_to_train_in_less(settings: Settings) -> str:
    ways = (
        f"{'set model.max_trained_users, ' if settings.model.can_fold_in else ''}make model.embedding_dim or "
        "model.batch_size smaller, or raise model.min_user_interactions and model.min_item_interactions"
    )
    if settings.neighborhood.enabled:
        ways += ", or lower neighborhood.max_trained_users"
    if settings.item_models:
        ways += f", or do without {' and '.join(settings.item_models)}"
    if "vae" in settings.components:
        ways += ", or lower vae.batch_users and vae.hidden_units, or do without vae"
    return ways


def measure_speeds(settings: Settings, workload: Workload) -> Speeds:
    """Time both kernels for some seconds on one core, on synthetic vectors and rows of this workload's density."""
    random = np.random.default_rng(0)
    with one_thread():
        return Speeds(_score_seconds(settings, workload, random), _distance_seconds(settings, workload, random))


def _steps(settings: Settings, workload: Workload, speeds: Speeds, cores: int) -> Iterator[StepPlan]:
    users, items, pairs = workload.users, workload.items, workload.interactions
    tasks, block_users = TASKS_A_CORE * cores, settings.matrix.block_users
    if settings.content.attributes:
        held = driver_bytes_of_content(settings.content, items)
        yield StepPlan("embed_content", 0, 0, 0, 0, held, None)
    if settings.neighbors.enabled:
        k, shards = neighbor_count(settings.neighbors.k, users), _shards(settings, 8 * pairs)
        a_user, is_local = workload.interactions_a_user, names_local_folder(settings.storage.root)
        worker = worker_bytes_of_search(block_users, items, users / shards, a_user, k, users / tasks, is_local)
        searches = 2 if settings.uses_neighbors else 1  # once without the hold-out, for the metrics
        seconds = searches * users**2 * speeds.distance_s / cores
        yield StepPlan("neighbors", tasks, shards, 8 * pairs + 8 * users, worker, 16 * users, seconds)
    yield from _training(settings, workload, tasks)
    if settings.components:
        lists = _lists(settings, workload, speeds, cores)
        held = lists.driver_bytes + driver_bytes_of_blend(settings)
        yield replace(lists, step="blend", driver_bytes=held, seconds=None)
    yield _lists(settings, workload, speeds, cores)
    for is_wanted, name, count in ((settings.similar.users, "users", users), (settings.similar.items, "items", items)):
        if is_wanted:
            dims = settings.model.embedding_dim
            embedded = 4 * count * (dims + 1)
            worker = worker_bytes_of_scoring(1024, dims, 0.0, settings.similar.top_k, count / tasks, True)
            seconds = count**2 * speeds.score_s / cores
            yield StepPlan(f"similar {name}", tasks, _shards(settings, embedded), embedded, worker, embedded, seconds)


def _training(settings: Settings, workload: Workload, tasks: int) -> Iterator[StepPlan]:
    users, items, dims = workload.users, workload.items, settings.model.embedding_dim
    training = max(
        driver_bytes_of_training(settings.model, workload) + driver_bytes_of_cold_items(settings, items),
        driver_bytes_of_similarity(settings, workload),
        driver_bytes_of_item_models(settings, workload),
        driver_bytes_of_vae(settings, workload),
    )
    mapped = mapped_bytes_of_training(settings.model, workload) + 8 * cells_of_segments(settings, workload)
    yield StepPlan("train", 0, 0, mapped, 0, training, None)
    if settings.model.max_trained_users is not None and settings.model.max_trained_users < users:
        handed_out = 4 * items * (dims + 1)
        block = settings.matrix.block_users * (29 * workload.interactions_a_user + 16 * (dims + EXTRA_COLUMNS))
        worker = int(WORKER_BYTES + block + 4 * (dims + 1024) * dims + 16 * dims**2)
        yield StepPlan("fold in", tasks, 1, handed_out, worker, handed_out, None)


def _lists(settings: Settings, workload: Workload, speeds: Speeds, cores: int) -> StepPlan:
    users, items, tasks = workload.users, workload.items, TASKS_A_CORE * cores
    columns, k = dims_of_lists(settings), settings.recommend.top_k
    vectors, a_user = 4 * items * columns, workload.interactions_a_user
    is_local, dims = names_local_folder(settings.storage.root), columns - EXTRA_COLUMNS
    worker = worker_bytes_of_scoring(settings.matrix.block_users, dims, a_user, k, users / tasks, is_local)
    disk = vectors + 8 * items + mapped_bytes_of_lists(settings, workload, cells_of_segments(settings, workload))
    seconds = users * items * speeds.score_s / cores
    shards, worker = _shards(settings, vectors), worker + worker_bytes_of_lists(settings)
    return StepPlan("recommend", tasks, shards, disk, worker, vectors, seconds)


def _shards(settings: Settings, n_bytes: int) -> int:
    return max(1, math.ceil(n_bytes / (settings.matrix.shard_mb << 20)))


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
    """Of one more distance: shards hold many times the users here, and so what each takes by its items is little."""
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

    def taken(candidates: int) -> float:
        return _seconds(lambda: nearest_rows(queries, ids, rows.slice_rows(0, candidates), 0, k))

    whole, few = taken(n_users), n_users // 8
    of_more = whole - taken(few) if few and n_users < workload.users else 0.0
    if of_more > 0:
        return of_more / (queries.n_rows * (n_users - few))
    return whole / (queries.n_rows * n_users)  # all users, or a clock too coarse for a difference


def _seconds(work: Callable[[], object]) -> float:
    """The median of as many runs as a second holds, at least one, after one that compiles."""
    work()
    taken: list[float] = []
    while sum(taken) < CALIBRATION_S:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
