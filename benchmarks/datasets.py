"""Public data sets to measure on. They are not part of the project: `RECSYS_DATA` names the folder that has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from recsys_spark.models.interactions import TrainingPairs

FOLDER = Path(os.environ.get("RECSYS_DATA", Path(__file__).parents[2] / "shared" / "data"))


def gowalla(part: str = "train") -> TrainingPairs:
    """The `train` or `test` check-ins of Gowalla: 29,858 users, 40,981 places; the split of LightGCN (SIGIR 2020)."""
    pairs = pq.read_table(require("gowalla") / f"{part}.parquet", columns=["user", "item"])
    users, items = (pairs.column(name).to_numpy().astype(np.int32) for name in ("user", "item"))
    return TrainingPairs(users, items, np.ones(len(users), np.float32), 29_858, 40_981)


def require(name: str) -> Path:
    """The folder of a data set; the program ends when it is not there."""
    folder = FOLDER / name
    if not folder.is_dir():
        raise SystemExit(f"{name} is not in {FOLDER}: set RECSYS_DATA to a folder that has it (see docs/quality.md)")
    return folder
