"""JSON records, UTC times and safe names: what every file beside the tables is made of."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import StorageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A name ending so would be skipped or half-read by tools that sync folders.
_TEMPORARY_ENDINGS = (".tmp", ".crc", "._COPYING_")


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


def to_iso(moment: datetime) -> str:
    """UTC ISO 8601 with microseconds and a `Z`, so that texts sort as the times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_iso(text: str) -> datetime:
    """The aware time of an ISO 8601 text; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def encode(record: Mapping[str, Any]) -> bytes:
    """The record as indented JSON: NumPy numbers as numbers, times and paths as text, NaN and infinity as null."""
    return (json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, datetime):
        return to_iso(value)
    # NumPy's scalars and arrays, without importing NumPy here
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def decode(content: bytes, path: str) -> dict[str, Any]:
    """The record of a file's bytes.

    Raises:
        StorageError: when they are not a JSON object, naming the file.
    """
    try:
        record = json.loads(content)
    except ValueError as error:
        raise StorageError(f"{path} is not valid JSON ({error}); it was truncated or edited") from error
    if not isinstance(record, dict):
        raise StorageError(f"{path} holds {type(record).__name__}, expected a JSON object")
    return record


def checked_name(kind: str, name: str) -> str:
    """The name, when it can be a folder or file that every file system stores and Spark does not skip.

    Raises:
        SettingsError: for separators, a leading `_` or `.` (readers skip those), other characters or lengths.
    """
    if not _NAME.fullmatch(name) or name.endswith(_TEMPORARY_ENDINGS):
        raise SettingsError(
            f"{kind} {name!r} cannot be used: start with a letter or digit, "
            "then letters, digits, '.', '_' and '-', at most 128, not ending like a temporary file"
        )
    return name
