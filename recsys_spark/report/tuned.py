"""Prints trials as they end, and what the best of them gains."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from recsys_spark.sampled_runs import say
from recsys_spark.studies import Trial
from recsys_spark.tuning import Tuned


def print_trial(trial: Trial, metric: str, console: Console) -> None:
    """Print a line: number, values, the metric on each sample, what became of it."""
    tried = " ".join(f"{name}={_short(value)}" for name, value in trial.values.items())
    values = "the settings as they are" if trial.is_untouched else tried
    measured = " -> ".join(f"{value:.4f}" for _, value in sorted(trial.measured.items()))
    failed = f", failed: {trial.problem}" if trial.problem is not None else ""
    say(console, f"trial {trial.number}: {metric} {measured or '-'}{', pruned' * trial.is_pruned}{failed}; {values}")


def print_tuned(tuned: Tuned, console: Console) -> None:
    """Print the best values beside those before, what both give, and how many trials ended early."""
    console.print(_grid(tuned))
    trials = tuned.trials
    pruned, failed = sum(trial.is_pruned for trial in trials), sum(trial.problem is not None for trial in trials)
    counts = f"{len(trials)} trials, {pruned} pruned" + (f", {failed} failed" if failed else "")
    print_line(f"{gain_of(tuned)}; {counts}.", console)


def gain_of(tuned: Tuned) -> str:
    """What the best trial gives beside the settings as they are, in words."""
    metric, best, before = f"validation {tuned.settings.tune.measured}", tuned.best, tuned.before
    if before.value is None:
        return f"{metric} {best.value:.4f}; the settings as they are failed: {before.problem}"
    if best.is_untouched:
        return f"{metric} {best.value:.4f}: none of the trials ranks better than the settings as they are"
    gain = f", {(best.value or 0.0) / before.value - 1:+.1%}" if before.value else ""
    return f"{metric} {best.value:.4f} (trial {best.number}), {before.value:.4f} before{gain}"


def print_line(text: str, console: Console) -> None:
    """Print a line as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _grid(tuned: Tuned) -> Grid:
    grid = Grid(box=None, pad_edge=False)
    for name in ("setting", "before", "best"):
        grid.add_column(name, justify="left" if name == "setting" else "right")
    for name, value in tuned.untouched.items():
        best = value if tuned.best.is_untouched else tuned.best.values.get(name, value)
        grid.add_row(Text(name), Text(_short(value)), Text(_short(best)))
    before = "failed" if tuned.before.value is None else f"{tuned.before.value:.4f}"
    grid.add_row(Text(f"validation {tuned.settings.tune.measured}"), before, f"{tuned.best.value:.4f}")
    return grid


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
