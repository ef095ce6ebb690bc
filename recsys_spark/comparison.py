"""Compares models on a sample of the users: one run in a temporary root, each model in a process of its own.

A process of its own, because memory that Python has freed stays with it: a second model's peak would hold the first.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pyspark.sql import functions as F
from rich.console import Console

from recsys_spark.advising import Sections
from recsys_spark.config import with_changes
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.memory import MemorySampler, bytes_of_this_process
from recsys_spark.metrics.confidence import Difference, GroupSums, paired_difference
from recsys_spark.metrics.measure import read_sums
from recsys_spark.model_sections import Loss
from recsys_spark.night import Step, scratch_folder
from recsys_spark.sampled_runs import reopen_sample, run_apart, run_step, sample_settings, say, start_sample
from recsys_spark.sections import RecommendSettings
from recsys_spark.session import open_session
from recsys_spark.sources import check_inputs, count_events
from recsys_spark.tables import INTERACTIONS, ITEMS, METRIC_SUMS, USERS

if TYPE_CHECKING:
    from recsys_spark.config import Settings
    from recsys_spark.storage.run_storage import RunStorage

LIST_MODELS: tuple[str, ...] = get_args(RecommendSettings.model_fields["model"].annotation)
LOSSES: tuple[str, ...] = get_args(Loss)
NDCG_AT, RECALL_AT = 10, 20
_FIRST_OF_ITS_OWN, _LAST = "train", "recommend"


@dataclass(frozen=True)
class Sample:
    """A run whose steps before the training are done: what all models are compared on."""

    settings: Settings
    run_id: str
    users: int
    items: int
    interactions: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Measured:
    """A model on the hold-out, and what it took; `problem`: why it could not be measured.

    `sums` are those of its NDCG; `to_best`: how far it is ahead of the model with the best one, by a paired test.
    """

    model: str
    ndcg: float | None = None
    recall: float | None = None
    item_coverage: float | None = None
    users: int = 0
    training_s: float | None = None
    scoring_s: float | None = None
    driver_mb: float | None = None
    problem: str | None = None
    sums: GroupSums | None = field(default=None, repr=False, compare=False)
    to_best: Difference | None = None


@dataclass(frozen=True)
class Comparison:
    """The sample and what came out of each model, popularity last."""

    sample: Sample
    models: list[Measured] = field(default_factory=list)


def candidate_sections(settings: Settings, names: Sequence[str]) -> dict[str, Sections]:
    """The settings that make each named model the one that lists are made with.

    Raises:
        SettingsError: for a name that is no model, or a model that the settings do not allow.
    """
    chosen: dict[str, Sections] = {}
    for name in names:
        if name not in (*LIST_MODELS, *LOSSES):
            raise SettingsError(
                f"--models {name!r} is no model: lists are made by {', '.join(LIST_MODELS)}, and embeddings are "
                f"learned with {', '.join(LOSSES)}"
            )
        chosen[name] = _sections_of(settings, name)
        try:
            with_changes(settings, chosen[name])
        except SettingsError as error:
            raise SettingsError(f"--models {name}: {error}") from error
    return chosen


def _sections_of(settings: Settings, name: str) -> Sections:
    is_loss, components = name in LOSSES, settings.hybrid.components
    sections: dict[str, dict[str, Any]] = {"recommend": {"model": "embedding" if is_loss else name}}
    if is_loss:
        sections["model"] = {"loss": name}
    if name != "neighbors" and not (name == "hybrid" and (components is None or "neighbors" in components)):
        sections["neighborhood"] = {"enabled": False}
    return sections


def default_models(settings: Settings) -> tuple[str, ...]:
    """All that lists can be made with by these settings."""
    has = {
        "embedding": settings.model.architecture != "neumf",
        "neighbors": settings.neighbors.enabled,
        "content": bool(settings.content.attributes),
        "hybrid": settings.model.architecture != "neumf",
    }
    return tuple(name for name in LIST_MODELS if has.get(name, True))


def compare_models(
    settings: Settings,
    names: Sequence[str],
    users: int,
    run_date: datetime.date | None,
    steps: Sequence[Step],
    console: Console,
) -> Comparison:
    """Train and measure the named models, all that fit without names, on about so many users with all they have.

    Raises:
        SettingsError: for a wrong name, input or column; nothing was trained then.
        RecsysError: when a step that all of them share fails.
    """
    chosen = candidate_sections(settings, names or default_models(settings))
    before, own = _halves(steps)
    with scratch_folder() as folder:
        shared = _shared_sections(settings, list(chosen.values()))
        sample: Sample = run_apart(_prepare, settings, shared, folder, users, run_date, before)
        say(console, f"{sample.users:,} users, {sample.items:,} items, {sample.interactions:,} interactions")
        measured: list[Measured] = []
        for name, sections in chosen.items():
            if not names and sample.items > _most_items(settings, name):
                continue
            say(console, f"{name}:")
            measured += _attempt(sample, name, sections, own)
    popular = next((each for each in measured if each.model == "popularity"), None)
    rest = [each for each in measured if each.model != "popularity"]
    return Comparison(sample, beside_best(rest + ([] if popular is None else [popular])))


def beside_best(measured: Sequence[Measured]) -> list[Measured]:
    """The models with how far each is ahead of the best of them, which is the first of equal ones."""
    found = [each for each in measured if each.ndcg is not None and each.sums is not None]
    best = max(found, key=lambda each: each.ndcg or 0.0, default=None)
    return [
        each
        if best is None or best.sums is None or each is best or each.sums is None
        else replace(each, to_best=paired_difference(each.sums, best.sums))
        for each in measured
    ]


def _halves(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The steps that all models share, and those of each one."""
    names = [step.name for step in steps]
    first, last = names.index(_FIRST_OF_ITS_OWN), names.index(_LAST)
    return tuple(steps[:first]), tuple(steps[first : last + 1])


def _shared_sections(settings: Settings, chosen: Sequence[Sections]) -> Sections:
    """The settings of the shared steps: neighbors are found where any of the models needs them."""
    need = [one for one in chosen if with_changes(settings, one).uses_neighbors]
    return need[0] if need else {**chosen[0], "neighbors": {"enabled": False}}


def _most_items(settings: Settings, name: str) -> float:
    return {"ease": settings.ease.max_items, "graph_filter": settings.graph_filter.max_items}.get(name, float("inf"))


def _attempt(sample: Sample, name: str, sections: Sections, steps: tuple[Step, ...]) -> list[Measured]:
    """What was measured of a model and of popularity beside it, or why nothing was."""
    try:
        measured: list[Measured] = run_apart(_measure, sample, name, sections, steps)
    except RecsysError as error:
        return [Measured(name, problem=str(error))]
    return measured


def _prepare(
    settings: Settings,
    sections: Sections,
    folder: Path,
    users: int,
    run_date: datetime.date | None,
    steps: tuple[Step, ...],
) -> Sample:
    spark = open_session(settings)
    check_inputs(spark, settings)
    share = users / max(count_events(spark, settings)[0], 1)
    sampled = with_changes(sample_settings(spark, settings, share, folder, (NDCG_AT, RECALL_AT)), sections)
    storage = start_sample(spark, sampled, run_date)
    with scratch_folder() as storage.scratch:
        seconds = {step.name: run_step(step, storage, sampled) for step in steps}
    users, items, interactions = (storage.count(table) for table in (USERS, ITEMS, INTERACTIONS))
    return Sample(sampled, storage.run.run_id, users, items, interactions, seconds)


def _measure(sample: Sample, name: str, sections: Sections, steps: tuple[Step, ...]) -> list[Measured]:
    settings = with_changes(sample.settings, sections)
    storage = reopen_sample(open_session(settings), settings, sample.run_id, steps)
    with scratch_folder() as storage.scratch, MemorySampler(bytes_of_this_process) as sampler:
        seconds = {step.name: run_step(step, storage, settings) for step in steps}
    metrics = storage.step_details("evaluate")["metrics"]
    learning = sum(took for step, took in seconds.items() if step not in ("evaluate", _LAST))
    ours, popular = settings.recommend.model, "popularity"
    sums = {model: _sums(storage, model) for model in (ours, popular)}
    measured = _measured(metrics, ours, name)
    took = replace(
        measured,
        training_s=round(learning, 1),
        scoring_s=round(seconds[_LAST], 1),
        driver_mb=round(sampler.peak_bytes / 2**20),
        sums=sums[ours],
    )
    return [took, replace(_measured(metrics, popular, popular), sums=sums[popular])]


def _sums(storage: RunStorage, model: str) -> GroupSums:
    is_wanted = (F.col("model") == model) & (F.col("metric") == "ndcg") & (F.col("k") == NDCG_AT)
    return read_sums([row.asDict() for row in storage.read(METRIC_SUMS).where(is_wanted).collect()])


def _measured(metrics: list[dict[str, Any]], model: str, name: str) -> Measured:
    values = {(row["metric"], row["k"]): row for row in metrics if row["model"] == model}
    if not any(row["users"] for row in values.values()):
        raise RecsysError("no user has enough items to set one aside; give more users, or another evaluate.split")
    ndcg, recall = values["ndcg", NDCG_AT], values["recall", RECALL_AT]["value"]
    coverage = values["item_coverage", NDCG_AT]["value"]
    return Measured(name, ndcg["value"], recall, coverage, ndcg["users"])
