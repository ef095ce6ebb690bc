"""What a published table holds, as one hash: rows in one order, every float to its last bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds


@dataclass(frozen=True)
class Content:
    """Rows and hash of a table."""

    rows: int
    sha256: str


def published_run(root: Path) -> Path:
    """The folder of the run that readers see."""
    return root / str(json.loads((root / "_CURRENT").read_text())["path"])


def content_of(folder: Path) -> Content:
    """The content of a table in Parquet, however its rows lie in files."""
    rows = ds.dataset(folder, format="parquet").to_table().to_pylist()
    # The text of a float is exact: two numbers of one text are one number.
    lines = sorted(repr(row) for row in rows)
    return Content(len(rows), hashlib.sha256("\n".join(lines).encode()).hexdigest())
