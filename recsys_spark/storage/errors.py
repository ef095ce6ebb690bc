"""Failures of the storage room; each message says what to do about it."""

from __future__ import annotations

from recsys_spark.errors import RecsysError, SettingsError


class StorageError(RecsysError):
    """A run, pointer, manifest or folder under the root is missing, broken or may not be changed."""


class UnknownRunError(StorageError, SettingsError):
    """The run that was asked for is not there, or not one that can be shown to readers."""


class TableSchemaError(StorageError):
    """A frame does not have the columns its table declares."""


class MissingTableError(StorageError):
    """A table was read before the step that writes it has finished."""


class PublishedRunError(StorageError):
    """Someone tried to change a published run."""


class LeaseHeldError(RecsysError):
    """Another night works on the same root."""


class LeaseLostError(RecsysError):
    """This night's lease was taken over, released or not renewed in time."""
