"""The memory of a training on the driver, beside the formula of `docs/scaling.md`: 64 dimensions, two passes.

A process of its own maps the pairs from files, as a night does, and trains; its peak beyond what it held after training
on a few pairs. Mapped pages are not counted: `mapped_mb` says how many there can be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import peak_beyond, save
from benchmarks.synthetic import Case
from recsys_spark.footprints import Workload, driver_bytes_of_training, mapped_bytes_of_training
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

MIDDLE, LARGE = Case(100_000, 20_000, 5_300_000), Case(1_000_000, 100_000, 55_000_000)
SMALL = [(MIDDLE, "ials")]
FULL = [*((MIDDLE, loss) for loss in ("ials", "bpr", "sampled_softmax", "softmax")), (LARGE, "ials")]
ARRAYS = ("user_idx", "item_idx", "rating")
PASSES = 2


def run(case: Case, loss: str) -> None:
    pairs, settings = case.pairs(), ModelSettings(loss=loss)
    workload = Workload(pairs.n_users, pairs.n_items, len(pairs))
    with TemporaryDirectory() as folder:
        for name in ARRAYS:
            np.save(Path(folder) / name, getattr(pairs, name))
        del pairs
        command = [sys.executable, "-m", "benchmarks.training_memory", "--train", folder]
        sizes = ["--users", str(workload.users), "--items", str(workload.items)]
        found = subprocess.run([*command, *sizes, "--loss", loss], check=True, capture_output=True, text=True)
    measured = json.loads(found.stdout.splitlines()[-1])
    stated = driver_bytes_of_training(settings, workload)
    line = {
        "benchmark": "training_memory",
        "case": case.name.replace("ials", loss),
        "interactions": workload.interactions,
        "measured_mb": round(measured["bytes"] / 2**20),
        "stated_mb": round(stated / 2**20),
        "mapped_mb": round(mapped_bytes_of_training(settings, workload) / 2**20),
        "seconds_a_pass": measured["seconds_a_pass"],
    }
    print(json.dumps(save("training_memory", line)), flush=True)


def train(folder: Path, users: int, items: int, loss: str) -> None:
    """Print the peak beyond a small training, and how long a pass took."""
    settings, seconds = ModelSettings(loss=loss), []

    def work() -> None:
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
        fit = fit_embeddings(TrainingPairs(*arrays, users, items, folder), settings, 0, epochs=PASSES)
        seconds.extend(log.seconds for log in fit.history)

    peak = peak_beyond(lambda: fit_embeddings(Case(100, 90, 2000).pairs(), settings, 0, epochs=1), work)
    print(json.dumps({"bytes": peak, "seconds_a_pass": round(float(np.median(seconds)), 2)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--train", type=Path, help="what the process of its own does")
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--loss")
    options = parser.parse_args()
    if options.train:
        train(options.train, options.users, options.items, options.loss)
    else:
        for case, loss in SMALL if options.size == "small" else FULL:
            run(case, loss)
