"""What code and libraries produced a run."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from importlib import metadata, resources
from importlib.resources.abc import Traversable

_PACKAGE = "recsys_spark"
_LIBRARIES = (
    "keras",
    "numba",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyspark",
    "scipy",
    "tensorflow",
)


def code_version() -> str:
    """Version of the installed package; `unknown` when it runs from files that were never installed."""
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return "unknown"


def code_sha256() -> str:
    """SHA-256 over the names and contents of the package's `.py` files, so that unreleased changes show."""
    digest = hashlib.sha256()
    for name, file in sorted(_sources(resources.files(_PACKAGE), _PACKAGE), key=lambda source: source[0]):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape the results, read without importing them."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    """Works inside a zip too, which is how a package may reach a driver."""
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, path)
        elif entry.name.endswith(".py"):
            yield path, entry
