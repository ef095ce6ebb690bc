"""Draws how a training went: the loss and, where it was measured, what chose the epoch: NDCG, or error of ratings."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys_spark.models.training import Fit

_LOSS, _MEASURED, _QUIET = "#8a8a8a", "#1f5fa8", "#b5b5b5"


def draw_learning_curve(fit: Fit, path: Path) -> None:
    """Write a PNG of a fit with at least one epoch."""
    epochs = [log.epoch for log in fit.history]
    errors = [log.validation_rmse for log in fit.history if log.validation_rmse is not None]
    ndcgs = [log.validation_ndcg for log in fit.history if log.validation_ndcg is not None]
    name, measured = ("RMSE of 0-1", errors) if errors else ("NDCG@10", ndcgs)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, [log.loss for log in fit.history], color=_LOSS, marker=".", label="loss (left)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = axes.get_lines()
    if len(measured) == len(epochs):
        right = axes.twinx()
        right.plot(epochs, measured, color=_MEASURED, marker=".", label=f"validation {name} (right)")
        best = measured[fit.best_epoch - 1]
        right.plot([fit.best_epoch], [best], "o", color=_MEASURED, label=f"best: epoch {fit.best_epoch}, {best:.4f}")
        if fit.popularity_ndcg is not None and not errors:
            popular = f"most popular items, {fit.popularity_ndcg:.4f}"
            right.axhline(fit.popularity_ndcg, color=_QUIET, linestyle="--", label=popular)
        right.set_ylabel(name)
        right.set_ylim(bottom=0)
        handles = [*handles, *right.get_lines()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Software": None})
