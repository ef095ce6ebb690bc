"""Lines of the files of a feed, as bytes, so that what is kept stays as it was."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator

_QUOTE = b'"'


def without_user(content: bytes, name: str, user_id: str) -> bytes | None:
    """The content of a file without the lists of a user; None when there are none in it.

    Lines that say that the user is gone stay. The name tells whether it is CSV, and packed.
    """
    is_packed, is_csv = name.endswith(".gz"), ".csv" in name
    plain = gzip.decompress(content) if is_packed else content
    records = list(_csv_records(plain) if is_csv else plain.splitlines(keepends=True))
    own = _csv_lists if is_csv else _json_lists
    removed = set(own(records, user_id))
    if not removed:
        return None
    kept = b"".join(record for number, record in enumerate(records) if number not in removed)
    return gzip.compress(kept, mtime=0) if is_packed else kept


def _json_lists(records: list[bytes], user_id: str) -> Iterator[int]:
    for number, record in enumerate(records):
        row = json.loads(record)
        if row["user_id"] == user_id and row.get("op") != "delete":
            yield number


def _csv_lists(records: list[bytes], user_id: str) -> Iterator[int]:
    rows = csv.DictReader(record.decode() for record in records)
    for number, row in enumerate(rows, start=1):  # after the line of names
        if row["user_id"] == user_id and row.get("op") != "delete":
            yield number


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
