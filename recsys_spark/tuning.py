"""Tunes the model of the settings: trials on samples of the users that grow, measured on what validates.

No test pair of the settings' split is known to any trial, so that the metrics of a night with the tuned settings are
of pairs by which nothing was chosen.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from pyspark.sql import SparkSession
from rich.console import Console

from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.night import Step, scratch_folder, today
from recsys_spark.sampled_runs import leave_submission
from recsys_spark.search_spaces import Space, Values, first_step, search_space, value_of
from recsys_spark.session import open_session
from recsys_spark.sources import check_inputs, count_events
from recsys_spark.studies import Study, Trial, digest_of, open_study
from recsys_spark.tuning_samples import measure_sample, prepare_samples

if TYPE_CHECKING:
    from recsys_spark.config import Settings

_MEASURING = "evaluate"


@dataclass(frozen=True)
class Tuned:
    """All trials, the first that of the settings as they are, with their values, `untouched`."""

    settings: Settings
    untouched: Values
    trials: Sequence[Trial]

    @property
    def before(self) -> Trial:
        """The trial of the settings as they are."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The trial that ranks best on the largest sample, of equal ones the first.

        Raises:
            RecsysError: when all have failed, with what the first said.
        """
        complete = [(trial.value, -trial.number, trial) for trial in self.trials if trial.value is not None]
        if not complete:
            raise RecsysError(f"all {len(self.trials)} trials failed, the first with: {self.before.problem}")
        return max(complete)[2]

    @property
    def changes(self) -> Values:
        """What to change in the settings: nothing where they are the best themselves."""
        return {} if self.best.is_untouched else self.best.values


def tune_model(
    settings: Settings,
    storage: Path,
    run_date: datetime.date | None,
    steps: Sequence[Step],
    console: Console,
    tell: Callable[[Trial], None],
) -> Tuned:
    """Try values for the model that makes the lists, going on with the study in the file `storage`.

    Args:
        settings: the settings to tune.
        storage: the journal file; it is made where there is none.
        run_date: the night; None for today, or for that of the study.
        steps: all steps of a night.
        console: where the samples are told of.
        tell: is called with each trial after it.

    Raises:
        SettingsError: for a wrong search space, input or column, or a study of something else; nothing was tried then.
        RecsysError: when a step that all trials share fails.
    """
    space, tune = search_space(settings), settings.tune
    leave_submission()
    spark = open_session(settings)
    check_inputs(spark, settings)
    counts = count_events(spark, settings)
    sizes = sample_sizes(min(tune.users, counts[0]), _least_users(settings, space), tune.reduction_factor)
    started_with, date = _started_with(settings, space, counts, run_date), run_date or today(settings)
    untouched = {name: value_of(settings, name) for name in space}
    with open_study(storage, started_with, date, space, sizes, tune.reduction_factor, settings.seed) as study:
        if len(study.trials) < tune.trials:
            shares = [size / max(counts[0], 1) for size in sizes]
            _search(spark, settings, space, study, shares, steps, console, tell)
        return Tuned(settings, untouched, study.trials[: tune.trials])


def sample_sizes(users: int, least: int, factor: int) -> list[int]:
    """Users of each sample, rising by a factor from at least `least` to `users`; that alone where it is less."""
    smallest, number = users, 1
    while smallest // factor >= least:
        smallest, number = smallest // factor, number + 1
    return [*[smallest * factor**place for place in range(number - 1)], users]


def write_settings(path: Path, content: Mapping[str, Any], comment: str) -> None:
    """Write a settings file, whole or not at all, with a comment above it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(f"# {comment}\n\n{tomli_w.dumps(content)}", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def output_paths(settings_file: str, output: str | None, storage: str | None) -> tuple[Path, Path]:
    """Where the tuned settings and the study go: beside the settings where nothing is said.

    Raises:
        SettingsError: when one would overwrite another, or its folder is not there.
    """
    source = Path(settings_file)
    tuned = source.with_name(f"{source.stem}.tuned.toml") if output is None else Path(output)
    journal = tuned.with_name(f"{tuned.stem}.journal") if storage is None else Path(storage)
    for option, path, others in (("--output", tuned, [source]), ("--storage", journal, [source, tuned])):
        if path.resolve() in [other.resolve() for other in others]:
            raise SettingsError(f"{option} {path} would overwrite the settings: name another file")
        if not path.parent.is_dir() or path.is_dir():
            raise SettingsError(f"{option} {path} cannot be written: its folder is not there, or it is a folder itself")
    return tuned, journal


def _least_users(settings: Settings, space: Space) -> int:
    """Singular vectors must be fewer than users."""
    dims = space.get("model.embedding_dim")
    if settings.model.loss != "spectral" or dims is None:
        return settings.tune.min_users
    return max(settings.tune.min_users, *(2 * int(dim) for dim in dims.choices or (dims.high or 0,)))


def _started_with(
    settings: Settings, space: Space, counts: tuple[int, int, int], run_date: datetime.date | None
) -> Mapping[str, Any]:
    """What a study rests on: another one cannot go on with its trials."""
    how = settings.tune.model_dump(mode="json", exclude={"trials", "spaces"})
    tried = {name: values.model_dump(mode="json") for name, values in space.items()}
    rests_on = {"settings": settings.digest(), "settings of [tune]": how, "search space": digest_of(tried)}
    # Without a date a study goes on for the night that it was begun for.
    return rests_on | {"input": list(counts)} | ({} if run_date is None else {"run date": run_date.isoformat()})


def _search(
    spark: SparkSession,
    settings: Settings,
    space: Space,
    study: Study,
    shares: Sequence[float],
    steps: Sequence[Step],
    console: Console,
    tell: Callable[[Trial], None],
) -> None:
    names, untouched = [step.name for step in steps], {name: value_of(settings, name) for name in space}
    first, last = names.index(first_step(space, names)), names.index(_MEASURING)
    with scratch_folder() as folder:
        samples = prepare_samples(spark, settings, shares, study.run_date, steps[:first], folder, console)
        scratches = (folder / f"trial-{number}" for number in range(10**9))

        def measure(values: Values, place: int) -> float:
            return measure_sample(spark, samples[place], values, steps[first : last + 1], next(scratches))

        while len(study.trials) < settings.tune.trials:
            tell(study.run_trial(untouched, measure))
