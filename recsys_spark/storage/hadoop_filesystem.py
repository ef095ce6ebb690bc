"""HDFS, S3, Azure, Google and the rest, through the Hadoop file systems of Spark's driver."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from py4j.java_gateway import is_instance_of
from py4j.protocol import Py4JJavaError
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.file_status import FileStatus
from recsys_spark.storage.local_filesystem import copy_whole

# Here a rename copies, and one PUT replaces an object whole.
OBJECT_STORES = frozenset(
    ("s3", "s3a", "s3n", "gs", "abfs", "abfss", "wasb", "wasbs", "oss", "cos", "cosn", "obs", "tos")
)
# py4j sends bytes as base64 text: fine for records, not for data.
_CHUNK_BYTES = 1 << 20

# HDFS says AlreadyBeingCreated to whoever loses a race for a new file, S3 RemoteFileChanged.
_EXISTS = {
    "FileAlreadyExistsException",
    "PathExistsException",
    "AlreadyBeingCreatedException",
    "RemoteFileChangedException",
}
_MISSING = {"FileNotFoundException", "PathNotFoundException", "NoSuchFileException"}


class HadoopFileSystem:
    """Any URI Spark can reach. `overrides` are Hadoop settings for this object only."""

    def __init__(self, spark: SparkSession, root: str, overrides: Mapping[str, str] | None = None) -> None:
        jvm: Any = getattr(spark, "_jvm", None)
        if jvm is None:
            raise SettingsError(f"storage.root {root!r} needs a classic Spark session, not Spark Connect")
        self._hadoop = jvm.org.apache.hadoop.fs
        self._sha256_hex = jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex
        self._gateway: Any = spark.sparkContext._gateway
        self._conf = jvm.org.apache.hadoop.conf.Configuration(spark._jsparkSession.sessionState().newHadoopConf())
        for key, value in (overrides or {}).items():
            self._conf.set(key, value)
        self._uri = self._path(root).toUri()
        self._files = self._open(root, is_private=bool(overrides))

    def _open(self, root: str, is_private: bool) -> Any:
        """Below the checksums where a file system adds them: a `.crc` beside a replaced file breaks its readers."""
        opener = self._hadoop.FileSystem.newInstance if is_private else self._hadoop.FileSystem.get
        try:
            files = opener(self._uri, self._conf)
        except (Py4JJavaError, CapturedException) as error:
            raise SettingsError(
                f"storage.root {root!r} cannot be opened: {_java_message(error)}; "
                "check the URI and that the jars of its scheme are on Spark's class path"
            ) from error
        self._is_raw = is_instance_of(self._gateway, files, "org.apache.hadoop.fs.ChecksumFileSystem")
        return files.getRawFileSystem() if self._is_raw else files

    def qualify(self, path: str) -> str:
        """The path with scheme and authority."""
        return str(self._files.makeQualified(self._path(path)).toString())

    def local_path(self, path: str) -> Path | None:
        """None: nothing here can be opened without a copy."""
        return None

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with _as_os_errors(path):
            return bool(self._files.exists(self._path(path)))

    def list(self, path: str) -> tuple[FileStatus, ...]:
        """The entries of a folder by name, hidden ones too."""
        with _as_os_errors(path):
            if self._files.getFileStatus(self._path(path)).isFile():
                raise NotADirectoryError(f"{path} is a file")
            found = [_status(status) for status in self._files.listStatus(self._path(path))]
        return tuple(sorted(found, key=lambda status: status.name))

    def read_bytes(self, path: str) -> bytes:
        """The whole content of a file; a large one goes over local disk."""
        with _as_os_errors(path):
            if self._files.getFileStatus(self._path(path)).getLen() > _CHUNK_BYTES:
                return self._read_large(path)
            stream = self._files.open(self._path(path))
            try:
                return bytes(stream.readAllBytes())
            finally:
                stream.close()

    def _read_large(self, path: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "content"
            self.copy_to_local(path, copy)
            return copy.read_bytes()

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of a file, computed in the JVM."""
        with _as_os_errors(path):
            stream = self._files.open(self._path(path))
            try:
                return str(self._sha256_hex(stream))
            finally:
                stream.close()

    def create(self, path: str, content: bytes) -> None:
        """Write a new file. HDFS shows it empty for a moment; S3 and Google Storage whole or not at all."""
        self._write(path, content, is_overwrite=False)

    def replace(self, path: str, content: bytes) -> None:
        """One PUT on object stores; elsewhere a hidden file renamed onto the target in one step."""
        if self._uri.getScheme() in OBJECT_STORES:
            self._write(path, content, is_overwrite=True)
            return
        folder, _, name = path.rpartition("/")
        temporary = f"{folder}/.{name[:64]}.{uuid4().hex}.tmp"
        try:
            self._write(temporary, content, is_overwrite=False)
            with _as_os_errors(path):
                self._rename_over(temporary, path)
        except OSError:
            self.delete(temporary)
            raise

    def _write(self, path: str, content: bytes, is_overwrite: bool) -> None:
        with _as_os_errors(path):
            builder = self._files.createFile(self._path(path)).overwrite(is_overwrite).recursive()
            if not is_overwrite:  # a check at the PUT itself, where S3 would look only before it
                builder = builder.opt("fs.option.create.conditional.overwrite", "true")
            stream = builder.build()
            for start in range(0, len(content), _CHUNK_BYTES):
                stream.write(bytearray(content[start : start + _CHUNK_BYTES]))
            stream.close()

    def _rename_over(self, source: str, target: str) -> None:
        """`FileContext` replaces in one step on HDFS, but deletes first on local files: there a raw rename is right."""
        if self._is_raw:
            if not self._files.rename(self._path(source), self._path(target)):
                raise OSError(f"{source} could not be renamed to {target}")
            return
        rename = self._hadoop.Options.Rename
        options = self._gateway.new_array(rename, 1)
        options[0] = rename.OVERWRITE
        context = self._hadoop.FileContext.getFileContext(self._uri, self._conf)
        context.rename(self._path(source), self._path(target), options)

    def delete(self, path: str) -> None:
        """Remove a file, or a folder with all it holds."""
        with _as_os_errors(path):
            self._files.delete(self._path(path), True)

    def make_directories(self, path: str) -> None:
        """Make a folder and those above it."""
        with _as_os_errors(path):
            self._files.mkdirs(self._path(path))

    def copy_to_local(self, path: str, target: Path) -> None:
        """Copy a file or folder to a new local path, whole or not at all."""

        def copy(temporary: Path) -> None:
            is_source_deleted, is_raw = False, True  # raw: no `.crc` beside the copies
            self._files.copyToLocalFile(is_source_deleted, self._path(path), self._local(temporary), is_raw)

        with _as_os_errors(path):
            copy_whole(copy, target)

    def copy_from_local(self, source: Path, path: str) -> None:
        """Copy a local file or folder to a new path."""
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist")
        if self.exists(path):  # Hadoop would nest a folder in the existing one
            raise FileExistsError(f"{path} exists")
        is_source_deleted, is_overwrite = False, False
        with _as_os_errors(path):
            self._files.copyFromLocalFile(is_source_deleted, is_overwrite, self._local(source), self._path(path))

    def _path(self, path: str) -> Any:
        return self._hadoop.Path(path)

    def _local(self, path: Path) -> Any:
        return self._hadoop.Path(f"file://{path.absolute()}")


def _status(status: Any) -> FileStatus:
    is_directory = bool(status.isDirectory())
    size = 0 if is_directory else int(status.getLen())
    modified_at = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC)
    path = status.getPath()
    return FileStatus(str(path.getName()), str(path.toString()), size, is_directory, modified_at)


@contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Java's exceptions as the ones of Python's own file functions."""
    try:
        yield
    except (Py4JJavaError, CapturedException) as error:
        message = f"{path}: {_java_message(error)}"
        names = {_class_name(cause) for cause in _causes(error)}
        if names & _EXISTS:
            raise FileExistsError(message) from error
        if names & _MISSING:
            raise FileNotFoundError(message) from error
        raise OSError(message) from error


def _class_name(exception: Any) -> str:
    """Without its package; of an exception that HDFS passes on from its server, the name it has there."""
    name = str(exception.getClass().getSimpleName())
    return str(exception.getClassName()).rpartition(".")[2] if name == "RemoteException" else name


def _java_message(error: Py4JJavaError | CapturedException) -> str:
    """The Java exception and its causes on one line, without their stack traces."""
    texts = [str(cause.toString()) for cause in _causes(error)] or [str(error)]
    return "; caused by ".join(text.partition("\n")[0] for text in texts)


def _causes(error: Py4JJavaError | CapturedException) -> list[Any]:
    cause: Any = error.java_exception if isinstance(error, Py4JJavaError) else error._origin
    causes: list[Any] = []
    while cause is not None and len(causes) < 4:
        causes.append(cause)
        cause = cause.getCause()
    return causes
