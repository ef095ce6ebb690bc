"""How published lists did from night to night: the table `backtest` as a file and as a picture."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from recsys_spark.tables import BACKTEST

_LINES = {
    "published": ("published lists", "#1f5fa8", "-"),
    "popularity": ("most popular items, same users", "#8a8a8a", "--"),
}
_SHOWN_K = 10


def write_trend(trend: pa.Table, path: Path) -> None:
    """Write the rows of `backtest` as CSV, in the order of its key."""
    ordered = trend.select(BACKTEST.schema.names).sort_by([(name, "ascending") for name in BACKTEST.key])
    pyarrow.csv.write_csv(ordered, path)


def draw_trend(trend: pa.Table, path: Path) -> None:
    """Write a PNG of NDCG by night, of the published lists and of popularity; the trend must hold a night."""
    last = max(trend.column("run_date").to_pylist())
    k = shown_k(trend, last)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for model, (label, color, style) in _LINES.items():
        by_night = ndcg_by_night(trend, model, k)
        nights = [date2num(night) for night in by_night]  # type: ignore[no-untyped-call]
        axes.plot(nights, list(by_night.values()), color=color, linestyle=style, marker=".", label=label)
    axes.set_xlabel("night that measured the lists of the night before")
    axes.set_ylabel(f"NDCG@{k}")
    _frame(axes)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, metadata={"Software": None})


def _frame(axes: Axes) -> None:
    """From 0 to above the highest point, and a day beside the first and the last night: one alone spans no range."""
    axes.set_ylim(0, max(axes.dataLim.y1 * 1.1, 0.01))
    axes.set_xlim(axes.dataLim.x0 - 1, axes.dataLim.x1 + 1)
    locator = AutoDateLocator(minticks=1, maxticks=10, interval_multiples=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def shown_k(trend: pa.Table, run_date: datetime.date) -> int | None:
    """The longest lists of at most 10 that a night has measured, or its shortest; None when it has measured none."""
    nights, ks = (trend.column(name).to_pylist() for name in ("run_date", "k"))
    found = sorted({k for night, k in zip(nights, ks, strict=True) if night == run_date})
    return max((k for k in found if k <= _SHOWN_K), default=min(found, default=None))


def ndcg_by_night(trend: pa.Table, model: str, k: int | None) -> dict[datetime.date, float]:
    """NDCG of a model's lists of length k, by the night that measured it, rising."""
    chosen = [
        (row["run_date"], row["value"])
        for row in trend.select(["run_date", "model", "metric", "k", "value"]).to_pylist()
        if (row["model"], row["metric"], row["k"]) == (model, "ndcg", k)
    ]
    return dict(sorted(chosen))
