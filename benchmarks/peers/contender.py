"""What a model has to say of itself to be tuned and measured beside others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from optuna.distributions import BaseDistribution

from benchmarks.ranking import Scores
from recsys_spark.models.interactions import TrainingPairs

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A fit: scores of all items for some users, its seconds, and settings that it has chosen, such as epochs.

    The seconds are those of learning from pairs in memory, without starts of processes and sessions.
    """

    scores: Scores
    train_s: float
    chosen: Settings = field(default_factory=dict)


class Fit(Protocol):
    """Learns from pairs; with held-out pairs, which may stop it early, says in `chosen` where it stopped."""

    def __call__(self, pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
        """Fit with settings, those that were chosen before among them when there are no held-out pairs."""
        ...


@dataclass(frozen=True)
class Contender:
    """A model by its name in the saved lines, its own defaults, and the space around them that is searched."""

    name: str
    fit: Fit
    defaults: Settings = field(default_factory=dict)
    space: dict[str, BaseDistribution] = field(default_factory=dict)
