"""Failures of exports; what a store served before, it still serves."""

from __future__ import annotations

from recsys_spark.errors import RecsysError


class ExportError(RecsysError):
    """A store could not be reached, refused what it was sent, or holds something else than it should."""
