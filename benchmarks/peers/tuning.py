"""The same budget of trials for every model."""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from benchmarks.peers.contender import Contender, Settings
from benchmarks.quality import SEED
from benchmarks.ranking import lists_of
from benchmarks.splits import Task

RANDOM_SHARE = 0.25
"""Of the trials, before the sampler models the objective."""
NEAR_AN_END = 0.03
"""Of a range, in its scale: a best setting as near as this says that the range may be too narrow."""


@dataclass(frozen=True)
class Tuned:
    """The best settings, the value of the first metric they reached on held-out pairs, and what it took."""

    settings: Settings
    validation: float
    trials: int
    failed: int
    tune_s: float


def tune(contender: Contender, task: Task, metric: str, trials: int) -> Tuned:
    """Search a contender's space from its defaults on; without a space, they are all that is tried.

    By a tree-structured Parzen estimator of all settings together, with a fixed seed: Bergstra et al., "Algorithms for
    Hyper-Parameter Optimization", NIPS 2011; Falkner et al., "BOHB", ICML 2018.

    Raises:
        ValueError: no trial has succeeded.
    """
    started = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        sampler = TPESampler(seed=SEED, n_startup_trials=int(RANDOM_SHARE * trials), multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(dict(contender.defaults))
    for _ in range(trials if contender.space else 1):
        trial = study.ask(contender.space)
        value = value_of(contender, task, metric, trial)
        study.tell(trial, value, TrialState.FAIL if value is None else None)
    best = study.best_trial
    seconds = round(time.perf_counter() - started, 1)
    for name in at_an_end(best):
        print(f"{contender.name}: the best {name}, {best.params[name]}, is at an end of its range", file=sys.stderr)
    failed = sum(trial.state == TrialState.FAIL for trial in study.trials)
    return Tuned(settings_of(best), round(best.values[0], 5), len(study.trials), failed, seconds)


def at_an_end(trial: FrozenTrial) -> list[str]:
    """The settings of a trial that lie at an end of their range; choices and short ranges of numbers have none."""
    found = []
    for name, space in trial.distributions.items():
        if isinstance(space, FloatDistribution) or (isinstance(space, IntDistribution) and space.log):
            low, high, value = (
                np.log(each) if space.log else each for each in (space.low, space.high, trial.params[name])
            )
            if min(value - low, high - value) < NEAR_AN_END * (high - low):
                found.append(name)
    return found


def value_of(contender: Contender, task: Task, metric: str, trial: Trial) -> float | None:
    """The mean of a metric on held-out pairs; none where the fit fails, which is said."""
    started = time.perf_counter()
    try:
        fitted = contender.fit(task.train, trial.params, task.held_out)
        values = task.measure(lists_of(fitted.scores, task.train.n_users), task.train)[metric]
    except Exception as error:
        print(f"{contender.name} failed with {trial.params}: {error}", file=sys.stderr)
        return None
    trial.set_user_attr("chosen", dict(fitted.chosen))
    value = float(np.nanmean(values))
    seconds = round(time.perf_counter() - started, 1)
    shown = {"model": contender.name, **trial.params, **fitted.chosen, metric: round(value, 5), "seconds": seconds}
    print(json.dumps(shown), file=sys.stderr, flush=True)
    return value


def settings_of(trial: FrozenTrial) -> Settings:
    """Those that were searched for, and those the fit has chosen."""
    return trial.params | trial.user_attrs["chosen"]
