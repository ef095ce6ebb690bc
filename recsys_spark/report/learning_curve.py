"""Draws how a training went: the loss and, where it was measured, the validation NDCG of each epoch."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys_spark.models.training import Fit

_LOSS, _NDCG, _QUIET = "#8a8a8a", "#1f5fa8", "#b5b5b5"


def draw_learning_curve(fit: Fit, path: Path) -> None:
    """Write a PNG of a fit with at least one epoch."""
    epochs = [log.epoch for log in fit.history]
    ndcgs = [log.validation_ndcg for log in fit.history if log.validation_ndcg is not None]
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(epochs, [log.loss for log in fit.history], color=_LOSS, marker=".", label="loss (left)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = axes.get_lines()
    if len(ndcgs) == len(epochs):
        right = axes.twinx()
        right.plot(epochs, ndcgs, color=_NDCG, marker=".", label="validation NDCG@10 (right)")
        best = ndcgs[fit.best_epoch - 1]
        right.plot([fit.best_epoch], [best], "o", color=_NDCG, label=f"best: epoch {fit.best_epoch}, {best:.4f}")
        if fit.popularity_ndcg is not None:
            name = f"most popular items, {fit.popularity_ndcg:.4f}"
            right.axhline(fit.popularity_ndcg, color=_QUIET, linestyle="--", label=name)
        right.set_ylabel("NDCG@10")
        right.set_ylim(bottom=0)
        handles = [*handles, *right.get_lines()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Software": None})
