"""Runs all benchmarks, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    "scoring_kernel",
    "neighbors_kernel",
    "neighbor_scoring",
    "blend_scoring",
    "scoring_job",
    "neighbors_job",
    "broadcast",
    "scaling",
    "evaluating",
    "training_speed",
    "quality",
    "neighborhood",
    "fold_in",
    "time_to_quality",
    "warm_start",
    "training_memory",
    "driver_memory",
    "rating_error",
    "item_features",
    "item_model_quality",
    "hybrid_quality",
    "diversity",
    "reasons",
    "rules",
    "exporting",
)


def main() -> int:
    failed = [
        name for name in NAMES if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
