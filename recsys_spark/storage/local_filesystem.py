"""Files of this machine (or a network mount), through plain system calls."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from recsys_spark.errors import SettingsError
from recsys_spark.storage.file_status import FileStatus


class LocalFileSystem:
    """Paths and `file:` URIs. Hadoop's own local file system is not used: replacing a file through it loses readers."""

    def qualify(self, path: str) -> str:
        """The absolute path; with a scheme only when it came with one, as Spark may resolve the two differently."""
        return f"file://{_native(path)}" if path.startswith("file:") else str(_native(path))

    def local_path(self, path: str) -> Path | None:
        """The path itself."""
        return _native(path)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return _native(path).exists()

    def list(self, path: str) -> tuple[FileStatus, ...]:
        """The entries of a folder by name; those that vanish meanwhile are left out."""
        folder = _native(path)
        found = (_status(entry) for entry in sorted(folder.iterdir()))
        return tuple(status for status in found if status is not None)

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file."""
        return _native(path).read_bytes()

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of a file."""
        with _native(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def create(self, path: str, content: bytes) -> None:
        """Write a new file; it appears with its whole content where hard links are supported."""
        target = _native(path)
        temporary = _write_beside(target, content)
        try:
            # Unlike O_EXCL this shows the file with its content or not at all.
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # no hard links here: still exclusive, but the content comes a moment later
            _write_new(target, content)
        finally:
            temporary.unlink()
        _sync_folder(target.parent)

    def replace(self, path: str, content: bytes) -> None:
        """Write a hidden file beside the target and rename it onto the target."""
        target = _native(path)
        temporary = _write_beside(target, content)
        try:
            temporary.replace(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all it holds; of a link only the link."""
        _remove(_native(path))

    def make_directories(self, path: str) -> None:
        """Make a folder and those above it."""
        _native(path).mkdir(parents=True, exist_ok=True)

    def copy_to_local(self, path: str, target: Path) -> None:
        """Copy a file or folder to a new local path, whole or not at all."""
        copy_whole(lambda temporary: _copy(_native(path), temporary), target)

    def copy_from_local(self, source: Path, path: str) -> None:
        """Copy a local file or folder to a new path."""
        copy_whole(lambda temporary: _copy(source, temporary), _native(path))


def temporary_beside(target: Path) -> Path:
    """A new hidden path in the target's folder, which a rename can move onto the target."""
    return target.with_name(f".{target.name[:64]}.{uuid4().hex}.tmp")


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file in a local folder and below, by relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _native(path: str) -> Path:
    """The local path of a path or `file:` URI. Hadoop does not decode `%20` in paths, so neither does this."""
    if path.startswith("file:"):
        path = path.removeprefix("file:")
        if path.startswith("//"):
            host, slash, rest = path[2:].partition("/")
            if host not in ("", "localhost"):
                raise SettingsError(f"file://{path[2:]} names the host {host!r}; a local path is file:///folder")
            path = slash + rest
    return Path(os.path.abspath(path))  # noqa: PTH100 - Hadoop drops `..` too; Path.absolute() would keep it


def _status(path: Path) -> FileStatus | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    is_directory = path.is_dir()
    modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
    return FileStatus(path.name, str(path), 0 if is_directory else found.st_size, is_directory, modified_at)


def copy_whole(copy: Callable[[Path], None], target: Path) -> None:
    """Let `copy` make a hidden path beside the target, then rename it to the target.

    Raises:
        FileExistsError: when the target is there already.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        copy(temporary)
        temporary.rename(target)
    finally:
        _remove(temporary)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_beside(target: Path, content: bytes) -> Path:
    """A hidden file with the content beside the target, on disk for certain."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    _write_new(temporary, content)
    # A checksum file that Hadoop once wrote for the target would make Hadoop refuse the new content.
    target.with_name(f".{target.name}.crc").unlink(missing_ok=True)
    return temporary


def _write_new(path: Path, content: bytes) -> None:
    """A new file, on disk for certain, or no file."""
    with path.open("xb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system lets folders be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
