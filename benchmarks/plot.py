"""Draws docs/growth.svg from the saved lines: seconds over users, for scoring and for finding neighbors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from benchmarks.harness import RESULTS

TARGET = Path(__file__).parent.parent / "docs" / "growth.svg"
LAST = 3


def median_lines(benchmark: str) -> dict[str, dict[str, Any]]:
    """For each case the line with the median time of its last three."""
    path = RESULTS / f"{benchmark}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    by_case: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_case.setdefault(line["case"], []).append(line)
    return {case: sorted(found[-LAST:], key=_seconds)[len(found[-LAST:]) // 2] for case, found in by_case.items()}


def _seconds(line: dict[str, Any]) -> float:
    return float(line["project_s"])


def main() -> None:
    mpl.rcParams["svg.hashsalt"] = "recsys_spark"  # the same lines give the same file
    scoring = sorted((line["users"], line["project_s"]) for line in median_lines("scaling").values())
    neighbors = sorted(
        (1000 * int(case.split("-")[1].removesuffix("k")), line["project_s"])
        for case, line in median_lines("neighbors_job").items()
        if case.startswith("movielens")
    )
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for points, name, power in (
        (scoring, "scoring, 100,000 items, lists of 10", 1),
        (neighbors, "50 nearest users, MovieLens-20M shape", 2),
    ):
        if not points:
            continue
        users, seconds = zip(*points, strict=True)
        (drawn,) = axes.plot(users, seconds, "o-", label=name)
        ideal = [seconds[-1] * (count / users[-1]) ** power for count in users]
        axes.plot(users, ideal, ":", color=drawn.get_color(), label=f"growth as users{'' if power == 1 else '²'}")
    axes.set(xscale="log", yscale="log", xlabel="users", ylabel="seconds, two cores")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(TARGET, metadata={"Date": None})


if __name__ == "__main__":
    main()
