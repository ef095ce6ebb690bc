from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.cluster.contents import content_of

ROWS: list[dict[str, object]] = [{"user_id": "a", "scores": [0.5, 0.25]}, {"user_id": "b", "scores": [0.125]}]
SCHEMA = pa.schema([("user_id", pa.string()), ("scores", pa.list_(pa.float32()))])


def write(folder: Path, *files: list[dict[str, object]]) -> Path:
    folder.mkdir()
    for number, rows in enumerate(files):
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / f"part-{number}.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def test_order_and_files_do_not_matter(tmp_path: Path) -> None:
    one = content_of(write(tmp_path / "one", ROWS))
    other = content_of(write(tmp_path / "other", ROWS[1:], ROWS[:1]))
    assert one == other
    assert one.rows == 2


def test_the_last_bit_of_a_float_matters(tmp_path: Path) -> None:
    next_float = float(np.nextafter(np.float32(0.125), np.float32(1)))
    changed: list[dict[str, object]] = [ROWS[0], {"user_id": "b", "scores": [next_float]}]
    assert content_of(write(tmp_path / "one", ROWS)) != content_of(write(tmp_path / "other", changed))


def test_a_row_more_matters(tmp_path: Path) -> None:
    assert content_of(write(tmp_path / "one", ROWS)) != content_of(write(tmp_path / "other", [*ROWS, ROWS[0]]))
