"""Writes the tables of `peer_quality` between two comments of docs/quality.md, and draws docs/quality.svg beside them.

Of each data set and model one saved line counts: of those of `peer_quality`, which may be of several searches, the best
by validation, so that no search that was less lucky hides a better one; of those of the blend, which `hybrid_quality`
saves, and of content alone, which `content_quality` saves, the last. Of `quest_movielens_1m` the means over five folds,
of models that have all of them. The same lines give the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats

from benchmarks.harness import RESULTS
from benchmarks.splits import AT_10, FULL

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- benchmarks.quality_report: begin -->", "<!-- benchmarks.quality_report: end -->"
NOTHING = "No lines are saved yet: `make bench-quality SIZE=full`."
PEER, BLEND, NIGHT = "peer:", ("hybrid", "ranker"), "hybrid beside the best"
NAMES = {"peer:ease": "ease in NumPy", "hybrid": "hybrid, a whole night", "ranker": "ranker after the hybrid"}
OF_CONTENT = ("content", "peer:tfidf")
FOLDS, FOLDED = 5, "quest_movielens_1m"
TEST_PER_TRAIN = 0.25  # pairs of these folds
LEAST_SECONDS = 0.01
LABEL_GAP = 0.066  # of a panel's height
LEADER = {"arrowstyle": "-", "alpha": 0.3, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkA": 0}
COLORS = {False: "#c2410c", True: "#475569"}  # by whether it is a peer

Lines = dict[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """A model on a data set; seconds and the settings that were tried are none where they are not known."""

    model: str
    metrics: dict[str, float]
    train_s: float | None
    tune_s: float | None
    trials: int | None = None

    @property
    def is_peer(self) -> bool:
        """Of another library, or else the project's."""
        return self.model.startswith(PEER)

    @property
    def name(self) -> str:
        """As it is shown."""
        return NAMES.get(self.model, self.model.removeprefix(PEER))


def is_shown(line: dict[str, Any]) -> bool:
    is_of_content = line["model"] in OF_CONTENT and "train_s" in line
    return "trials" in line or line["model"] in (*BLEND, NIGHT) or is_of_content


def lines_that_count(text: str) -> Lines:
    """Of each data set and model the line that is best by validation, of equal ones or without it the last."""
    counting: Lines = {}
    for line in filter(is_shown, map(json.loads, text.splitlines())):
        cell = line["dataset"], line["model"]
        is_tuned = "trials" in line and cell in counting
        if not is_tuned or line["validation"] >= counting[cell]["validation"]:
            counting[cell] = line
    return counting


def row_of(lines: Lines, dataset: str, model: str) -> Row:
    """The blend has the seconds of its night: all of its models, weights, lists and tables."""
    line = lines[dataset, model]
    night = lines.get((dataset, NIGHT), {}) if model in BLEND else {}
    seconds = line.get("train_s", night.get("night_s"))
    return Row(model, line["metrics"], seconds, line.get("tune_s"), line.get("trials"))


def rows_of(lines: Lines, dataset: str) -> list[Row]:
    return [row_of(lines, dataset, model) for found, model in lines if found == dataset and model != NIGHT]


def mean_rows(lines: Lines) -> list[Row]:
    """Of the models that have all folds."""
    return [mean_row(rows) for rows in rows_by_fold(lines).values()]


def rows_by_fold(lines: Lines) -> dict[str, list[Row]]:
    """The rows of each model that has all folds, in their order."""
    by_fold = [{row.model: row for row in rows_of(lines, f"{FOLDED}/{fold}")} for fold in range(FOLDS)]
    complete = [model for model in by_fold[0] if all(model in fold for fold in by_fold)]
    return {model: [fold[model] for fold in by_fold] for model in complete}


def ahead_over_folds(lines: Lines, metric: str) -> str:
    """How far the blend is ahead of the best peer and of the best single model, and how sure that is; else nothing."""
    values = {
        model: np.array([row.metrics[metric] for row in rows])
        for model, rows in rows_by_fold(lines).items()
        if all(metric in row.metrics for row in rows)
    }
    if "hybrid" not in values:
        return ""
    peers = {model: each for model, each in values.items() if model.startswith(PEER)}
    own = {model: each for model, each in values.items() if model not in peers and model not in BLEND}
    said = []
    for others, which in ((peers, "the best of the others"), (own, "the best single model of the project")):
        if others:
            best = max(sorted(others), key=lambda model: float(others[model].mean()))
            name = NAMES.get(best, best.removeprefix(PEER))
            said.append(f"beside {name}, {which}, {gain_over_folds(values['hybrid'] - others[best], metric)}")
    return "Over the folds the blend " + ";\n".join(said) + "." if said else ""


def gain_over_folds(gains: NDArray[np.float64], metric: str) -> str:
    """The mean of the folds, the least and the most of them, and a test.

    The folds are random shares that overlap, for which Student's t is too sure of itself: its variance is corrected as
    by Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    t = gains.mean() / np.sqrt(gains.var(ddof=1) * (1 / FOLDS + TEST_PER_TRAIN))
    p_value = 2 * stats.t.sf(abs(t), FOLDS - 1)
    return (
        f"has {signed(gains.mean())} of {title_of(metric)} ({signed(gains.min())} to {signed(gains.max())} in single "
        f"folds), corrected paired t = {t:.1f} with {FOLDS - 1} degrees of freedom, p = {p_value:.1g}"
    )


def mean_row(rows: Sequence[Row]) -> Row:
    """Metrics that all of the folds have, and the mean of the seconds that are known."""
    names = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    metrics = {name: float(np.mean([row.metrics[name] for row in rows])) for name in names}
    seconds = [row.train_s for row in rows if row.train_s is not None]
    return Row(rows[0].model, metrics, float(np.mean(seconds)) if seconds else None, rows[0].tune_s, rows[0].trials)


def tables(lines: Lines) -> Iterator[tuple[str, tuple[str, ...], list[Row]]]:
    """Data sets that have models beside each other, with their metrics and their rows, best first."""
    for split in FULL:
        if split.tuned_on is not None:  # a further fold
            continue
        is_folded = split.folder == FOLDED
        rows = mean_rows(lines) if is_folded else rows_of(lines, split.name)
        rows = [row for row in rows if split.metrics[0] in row.metrics]
        if any(row.tune_s is not None for row in rows):  # peer_quality has been here
            rows.sort(key=lambda row: (-row.metrics[split.metrics[0]], row.model))
            yield f"{FOLDED}, mean of {FOLDS} folds" if is_folded else split.name, split.metrics, rows


def markdown(dataset: str, metrics: Sequence[str], rows: Sequence[Row]) -> str:
    """A heading and a table; the project's models are bold."""
    heads = ["", *map(title_of, metrics), "training, s", "trials", "tuning, s"]
    lines = [f"### {dataset}", "", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        values = [decimals(row.metrics[name]) if name in row.metrics else "" for name in metrics]
        name = row.name if row.is_peer else f"**{row.name}**"
        tried = [str(row.trials or ""), seconds_text(row.tune_s)]
        lines.append("| " + " | ".join([name, *values, seconds_text(row.train_s), *tried]) + " |")
    return "\n".join(lines)


def title_of(metric: str) -> str:
    name, _, k = metric.partition("@")
    return {"ndcg": "NDCG", "recall": "Recall", "hit_rate": "HR"}[name] + f"@{k}"


def decimals(value: float) -> str:
    return f"{value:.4f}".replace("0.", ".", 1)


def signed(value: float) -> str:
    return ("+" if value >= 0 else "-") + decimals(abs(value))


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}" if seconds >= 0.1 else "< .1"


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little upwards, then downwards, as keeps them a gap apart and at most 1."""
    places = list(heights)
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gap)
    places[-1] = min(places[-1], 1.0)
    for at in range(len(places) - 2, -1, -1):
        places[at] = min(places[at], places[at + 1] - gap)
    return places


def draw_panel(axes: Axes, dataset: str, metric: str, rows: Sequence[Row]) -> None:
    """A point a model, labels in a column beside the panel."""
    timed = sorted((row for row in rows if row.train_s is not None), key=lambda row: (row.metrics[metric], row.model))
    seconds = [max(row.train_s or 0.0, LEAST_SECONDS) for row in timed]
    values = np.array([row.metrics[metric] for row in timed])
    low, high = values.min(), values.max()
    margin = 0.06 * max(high - low, 0.01)
    axes.set(xscale="log", ylim=(low - margin, high + margin), title=dataset, ylabel=title_of(metric))
    axes.set_xlim(min(seconds) / 2, max(seconds) * 2)
    heights = (values - low + margin) / (high - low + 2 * margin)
    for row, x, y, place in zip(timed, seconds, values, spread(list(heights), LABEL_GAP), strict=True):
        color = COLORS[row.is_peer]
        axes.plot([x], [y], "o", color=color, markersize=6, zorder=3)
        axes.annotate(
            f"{row.name} {decimals(y)}", (x, y), (1.03, place), "data", "axes fraction", color=color, fontsize=9,
            va="center", annotation_clip=False, fontweight="normal" if row.is_peer else "bold",
            arrowprops=LEADER | {"color": color},
        )  # fmt: skip
    axes.set_xlabel("seconds of training")
    axes.grid(alpha=0.25)


def draw(found: Sequence[tuple[str, tuple[str, ...], list[Row]]], path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "recsys_spark"  # the same lines give the same file
    height = (len(found) + 1) // 2
    figure, panels = plt.subplots(height, 2, figsize=(12.5, 4.3 * height), squeeze=False, layout="constrained")
    for axes, (dataset, metrics, rows) in zip(panels.flat, found, strict=False):
        draw_panel(axes, dataset, metrics[0], rows)
    for axes in panels.flat[len(found) :]:
        axes.set_axis_off()
    figure.suptitle(
        "The project's models (orange, bold), other libraries' and baselines (gray); up and left is better", fontsize=11
    )
    figure.savefig(path, metadata={"Date": None})


def rewritten(page: str, written: str) -> str:
    """The page with what is written between the comments.

    Raises:
        ValueError: the page has not got them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/quality.md needs {BEGIN} and, after it, {END}")
    return f"{before}{BEGIN}\n{written}\n{END}{after}"


def main() -> None:
    path = RESULTS / "quality.jsonl"
    lines = lines_that_count(path.read_text() if path.exists() else "")
    found, ahead = list(tables(lines)), ahead_over_folds(lines, AT_10[0])
    parts = [markdown(*each) + (f"\n\n{ahead}" if ahead and each[0].startswith(FOLDED) else "") for each in found]
    if found:
        draw(found, DOCS / "quality.svg")
        parts.insert(0, "![quality against the time of training](quality.svg)")
    page = DOCS / "quality.md"
    page.write_text(rewritten(page.read_text(), "\n\n".join(parts) if parts else NOTHING))


if __name__ == "__main__":
    main()
