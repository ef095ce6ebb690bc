"""Prints how models compare on a sample of the users: one table, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from recsys_spark.comparison import NDCG_AT, RECALL_AT, Comparison, Measured
from recsys_spark.errors import RecsysError
from recsys_spark.report.summary import p_text

_COLUMNS = (
    f"NDCG@{NDCG_AT}",
    f"Recall@{RECALL_AT}",
    f"item coverage@{NDCG_AT}",
    "beside the best",
    "training",
    "scoring",
    "driver",
)


def print_comparison(comparison: Comparison, console: Console, as_json: bool) -> None:
    """Print what was measured, the best NDCG first.

    Raises:
        RecsysError: after the table, naming the models that could not be measured.
    """
    measured = sorted(comparison.models, key=lambda each: -1.0 if each.ndcg is None else each.ndcg, reverse=True)
    if as_json:
        console.print(json.dumps(_content(comparison, measured)), markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(_grid(measured))
        users = max(each.users for each in measured)
        console.print(
            f"Measured on what is held out of {users:,} users (evaluate.split = "
            f"{comparison.sample.settings.evaluate.split!r}); times are of all {comparison.sample.users:,} on this "
            f"machine, beside what the models share: {_shared(comparison.sample.seconds)}.",
            highlight=False,
            markup=False,
        )
    _require_all(measured)


def _content(comparison: Comparison, measured: Sequence[Measured]) -> dict[str, Any]:
    sample = comparison.sample
    counts = {"users": sample.users, "items": sample.items, "interactions": sample.interactions}
    shared = {step: round(seconds, 1) for step, seconds in sample.seconds.items()}
    return {"sample": counts | {"shared_s": shared}, "models": [_model(each) for each in measured]}


def _model(each: Measured) -> dict[str, Any]:
    known = asdict(replace(each, sums=None, to_best=None))
    del known["sums"]
    return known | {"to_best": None if each.to_best is None else each.to_best._asdict()}


def _grid(measured: Sequence[Measured]) -> Grid:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("model")
    for name in _COLUMNS:
        grid.add_column(name, justify="right")
    for each in measured:
        if each.problem is None:
            grid.add_row(each.model, *_cells(each))
        else:
            grid.add_row(Text(each.model), "failed", *[""] * (len(_COLUMNS) - 1))
    return grid


def _cells(each: Measured) -> list[str]:
    shares = [f"{value:.4f}" for value in (each.ndcg, each.recall, each.item_coverage) if value is not None]
    seconds = ["-" if value is None else f"{value:,.1f} s" for value in (each.training_s, each.scoring_s)]
    return [*shares, _to_best(each), *seconds, "-" if each.driver_mb is None else f"{each.driver_mb:,.0f} MB"]


def _to_best(each: Measured) -> str:
    return "" if each.to_best is None else f"{each.to_best.mean:+.4f}, p {p_text(each.to_best.p_value)}"


def _shared(seconds: dict[str, float]) -> str:
    """What was found once for all of them, as far as it took any time."""
    taken = {step: seconds.get(step, 0.0) for step in ("embed_content", "neighbors")}
    return ", ".join(f"{step} {took:.1f} s" for step, took in taken.items() if took >= 0.05) or "nothing"


def _require_all(measured: Sequence[Measured]) -> None:
    problems = [f"{each.model}: {each.problem}" for each in measured if each.problem is not None]
    if problems:
        raise RecsysError("not measured: " + "; ".join(problems))
