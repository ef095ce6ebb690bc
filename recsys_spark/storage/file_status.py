"""What a listing says about one file or folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class FileStatus:
    """One entry of a folder: `size` in bytes (0 for folders), `modified_at` aware, in UTC."""

    name: str
    path: str
    size: int
    is_directory: bool
    modified_at: datetime
