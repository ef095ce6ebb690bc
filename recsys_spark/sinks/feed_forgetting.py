"""The lists of a user out of the files of a feed; what is kept stays as it was, byte by byte."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from recsys_spark.sinks.files import DELTA, DONE
from recsys_spark.storage.filesystem import FileSystem, entries_of

_QUOTE = b'"'


def forget_in_feed(filesystem: FileSystem, root: str, user_id: str, is_csv: bool) -> int:
    """Replace the files that hold lists of a user, each in one step; give the number of these files.

    What was begun and never finished is removed. Hold the lease of the feed, so that nobody writes it.
    """
    return sum(_forget_in_file(filesystem, path, user_id, is_csv) for path in _finished_files(filesystem, root))


def _finished_files(filesystem: FileSystem, root: str) -> Iterator[str]:
    for starts, done in ((("full", "run_id="), DONE), (("delta", "run_id=", "base="), DELTA)):
        for folder in _folders(filesystem, root, starts):
            if not filesystem.exists(f"{folder}/{done}"):
                filesystem.delete(folder)
                continue
            names = [entry.name for entry in filesystem.list(folder)]
            yield from (f"{folder}/{name}" for name in names if not name.startswith(("_", ".")))


def _folders(filesystem: FileSystem, root: str, starts: Sequence[str]) -> list[str]:
    """Those whose names start like this, level by level."""
    found = [root]
    for start in starts:
        found = [
            f"{path}/{name}" for path in found for name in _folder_names(filesystem, path) if name.startswith(start)
        ]
    return found


def _folder_names(filesystem: FileSystem, path: str) -> list[str]:
    return [entry.name for entry in entries_of(filesystem, path) if entry.is_directory]


def _forget_in_file(filesystem: FileSystem, path: str, user_id: str, is_csv: bool) -> bool:
    found = without_user(filesystem.read_bytes(path), user_id, is_csv, path.endswith(".gz"))
    if found is None:
        return False
    filesystem.replace(path, found)
    folder, _, name = path.rpartition("/")
    filesystem.delete(f"{folder}/.{name}.crc")  # Hadoop's own, of what was there before
    return True


def without_user(content: bytes, user_id: str, is_csv: bool, is_packed: bool) -> bytes | None:
    """The content of a file without the lists of a user; None when there are none in it.

    Where lines say what changed, one says in their place that the user is gone.
    """
    plain = gzip.decompress(content) if is_packed else content
    records = list(_csv_records(plain) if is_csv else plain.splitlines(keepends=True))
    rows = _csv_rows(records) if is_csv else enumerate(map(json.loads, records))
    removed = {number: row for number, row in rows if row.get("user_id") == user_id and row.get("op") != "delete"}
    if not removed:
        return None
    first, row = next(iter(removed.items()))
    if "op" in row:
        records[first] = _gone_in_csv(row) if is_csv else _gone_in_json(user_id)
        removed.pop(first)
    kept = b"".join(record for number, record in enumerate(records) if number not in removed)
    return gzip.compress(kept, mtime=0) if is_packed else kept


def _gone_in_json(user_id: str) -> bytes:
    row = {"op": "delete", "user_id": user_id}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _gone_in_csv(row: dict[str, Any]) -> bytes:
    told, text = {"op": "delete", "user_id": row["user_id"], "rank": "0"}, io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow([told.get(name, "") for name in row])
    return text.getvalue().encode()


def _csv_rows(records: list[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with the places of their records; the first has the names."""
    rows = csv.reader(record.decode() for record in records)
    names = next(rows, [])
    return ((number, dict(zip(names, row, strict=False))) for number, row in enumerate(rows, start=1))


def _csv_records(content: bytes) -> Iterator[bytes]:
    """One at a time: a record ends with the first line that closes all quotes."""
    record = b""
    for line in content.splitlines(keepends=True):
        record += line
        if record.count(_QUOTE) % 2 == 0:
            yield record
            record = b""
    if record:
        yield record
