"""A study of trials in a journal file: it survives a kill, and goes on with the same trials as without one."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.sampled_runs import problem_of
from recsys_spark.search_spaces import Space, Values

if TYPE_CHECKING:
    from recsys_spark.tune_sections import SearchSpace

_NAME, _STARTED_WITH, _RUN_DATE = "tune", "started_with", "run_date"
_PROBLEM, _IS_UNTOUCHED = "problem", "is_untouched"
_TORN = "it is not the journal of a study"


@dataclass(frozen=True)
class Trial:
    """What came out of a trial: `measured`, by the users of the sample; `problem`: why it failed."""

    number: int
    values: Values
    measured: Mapping[int, float]
    is_untouched: bool
    is_pruned: bool
    problem: str | None = None

    @property
    def value(self) -> float | None:
        """What was measured on the largest sample; None when it did not get there."""
        return None if self.is_pruned or self.problem is not None else self.measured[max(self.measured)]


class _Halving(SuccessiveHalvingPruner):
    """Successive halving among the trials that count: what a kill has cut off is no competitor."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        among = copy(study)
        counted = [*_counted(study), trial]
        among.get_trials = lambda *_, **__: counted  # type: ignore[method-assign]
        return super().prune(among, trial)


class Study:
    """Trials of a search space on samples of growing size; open it with `open_study`."""

    def __init__(self, study: optuna.Study, space: Space, resources: Sequence[int], factor: int, seed: int) -> None:
        self._study, self._space, self._resources, self._seed = study, space, tuple(resources), seed
        self._study.pruner = _Halving(min_resource=self._resources[0], reduction_factor=factor)

    @property
    def trials(self) -> list[Trial]:
        """Those that were finished, pruned or failed, in their order."""
        return [_trial(number, frozen, self._space) for number, frozen in enumerate(_counted(self._study))]

    @property
    def run_date(self) -> datetime.date:
        """The night that the study was begun for."""
        return datetime.date.fromisoformat(self._study.user_attrs[_RUN_DATE])

    def run_trial(self, untouched: Values, measure: Callable[[Values, int], float]) -> Trial:
        """Draw values, measure them on one sample after the other while they are among the best, keep what came out.

        Args:
            untouched: the values of the settings as they are, which the first trial measures on all samples.
            measure: what the values give on the sample of that number; values are none for the first trial.
        """
        number = len(_counted(self._study))
        # Random numbers of a trial's own: a study that was interrupted draws the same as one that was not.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=_seed_of(self._seed, number), multivariate=False, constant_liar=False
        )
        distributions = {name: _distribution(space) for name, space in self._space.items()}
        if number == 0:
            distributions = {name: each for name, each in distributions.items() if _holds(each, untouched[name])}
            known = {name: untouched[name] for name in distributions}
            if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self._study.enqueue_trial(known, user_attrs={_IS_UNTOUCHED: True})
        trial = self._study.ask(distributions)
        try:
            self._measure(trial, {} if number == 0 else trial.params, measure, may_stop=number > 0)
        except Exception as error:
            trial.set_user_attr(_PROBLEM, problem_of(error))
            self._study.tell(trial, state=TrialState.FAIL)
        return self.trials[-1]

    def _measure(
        self, trial: optuna.Trial, values: Values, measure: Callable[[Values, int], float], may_stop: bool
    ) -> None:
        value = float("nan")
        for sample, users in enumerate(self._resources):
            value = measure(values, sample)
            trial.report(value, users)
            is_last = sample == len(self._resources) - 1
            # The first trial is asked about, too: the others compete with it.
            if not is_last and trial.should_prune() and may_stop:
                self._study.tell(trial, state=TrialState.PRUNED)
                return
        self._study.tell(trial, value)


@contextmanager
def open_study(
    path: Path,
    started_with: Mapping[str, Any],
    run_date: datetime.date,
    space: Space,
    resources: Sequence[int],
    factor: int,
    seed: int,
) -> Iterator[Study]:
    """The study in a journal file, begun when there is none; what a kill left running counts no longer.

    Args:
        path: the file.
        started_with: what a study must have been started with to go on with it.
        run_date: the night it is for, when it is begun.
        space: what is tried.
        resources: users of each sample, rising by `factor`.
        factor: about one in so many trials is measured on the next sample.
        seed: of all draws.

    Raises:
        SettingsError: naming the file, when it holds something else, or a study of something else.
        RecsysError: when another process works on it.
    """
    with path.open("ab") as file:
        _hold(file.fileno(), path)
        _drop_torn_line(path)
        study = _load(path)
        if not study.user_attrs:
            study.set_user_attr(_RUN_DATE, run_date.isoformat())
            study.set_user_attr(_STARTED_WITH, dict(started_with))
        _require_same(study.user_attrs.get(_STARTED_WITH, {}), started_with, path)
        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(left.number, state=TrialState.FAIL)
        yield Study(study, space, resources, factor, seed)


def digest_of(content: Any) -> str:
    """SHA-256 of anything that JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hold(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RecsysError(f"{path} is in use: another process tunes with it") from error


def _drop_torn_line(path: Path) -> None:
    """Cut off what a kill left of its last line; the next would be written behind it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        if not content.startswith(b"{"):
            raise SettingsError(f"--storage {path}: {_TORN}; name another file")
        with path.open("r+b") as file:
            file.truncate(whole)


def _load(path: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # whatever its reader makes of other files
        raise SettingsError(f"--storage {path}: {_TORN}; name another file") from error


def _require_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise SettingsError(
            f"{path} holds a study that was begun with other {' and '.join(differing)}: restore them to go on with it, "
            "or name another file with --storage"
        )


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in finished if trial.state != TrialState.FAIL or _PROBLEM in trial.user_attrs]


def _trial(number: int, frozen: FrozenTrial, space: Space) -> Trial:
    is_untouched = bool(frozen.user_attrs.get(_IS_UNTOUCHED))
    values = {name: frozen.params[name] for name in space if name in frozen.params}
    is_pruned = frozen.state == TrialState.PRUNED
    problem = frozen.user_attrs.get(_PROBLEM)
    return Trial(number, values, dict(frozen.intermediate_values), is_untouched, is_pruned, problem)


def _seed_of(seed: int, number: int) -> int:
    return int(digest_of([seed, number])[:8], 16)


def _distribution(space: SearchSpace) -> BaseDistribution:
    if space.choices is not None:
        return CategoricalDistribution(space.choices)
    low, high = space.low or 0, space.high or 0
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=space.log)
    return FloatDistribution(low, high, log=space.log)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value of the settings is one that may be drawn."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    return bool(low <= value <= high)
