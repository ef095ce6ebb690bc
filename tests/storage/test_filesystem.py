"""One contract, held by every implementation."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.hadoop_filesystem import OBJECT_STORES, HadoopFileSystem
from recsys_spark.storage.local_filesystem import LocalFileSystem

HOSTILE_NAMES = ["a b", "100%", "a%20b", "é日", "a+b=c", "[x]{y}*?", "_temporary", ".hidden", "#frag", "~", "q?x"]

RAW = {
    "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
}
Opened = tuple[FileSystem, str, Path]


def _local(spark: SparkSession, folder: Path) -> Opened:
    return LocalFileSystem(), str(folder), folder


def _local_uri(spark: SparkSession, folder: Path) -> Opened:
    return LocalFileSystem(), f"file://{folder}", folder


def _hadoop_checksummed(spark: SparkSession, folder: Path) -> Opened:
    """What Spark itself uses for `file:`, with its `.crc` files to be kept away."""
    return HadoopFileSystem(spark, f"file://{folder}"), f"file://{folder}", folder


def _hadoop_viewfs(spark: SparkSession, folder: Path) -> Opened:
    """Another scheme and authority; replaces through FileContext, as on HDFS."""
    mounts = {"fs.viewfs.mounttable.test.link./data": f"file://{folder}"}
    return HadoopFileSystem(spark, "viewfs://test/data", RAW | mounts), "viewfs://test/data", folder


def _hadoop_put(spark: SparkSession, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """The way of the object stores, one overwriting create, over a raw local file system."""
    opened = HadoopFileSystem(spark, f"file://{folder}", RAW)
    monkeypatch.setattr("recsys_spark.storage.hadoop_filesystem.OBJECT_STORES", OBJECT_STORES | {"file"})
    return opened, f"file://{folder}", folder


@pytest.fixture(params=["local", "local_uri", "hadoop_checksummed", "hadoop_viewfs", "hadoop_put"])
def opened(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Opened:
    folder = tmp_path / "root"
    folder.mkdir()
    if request.param == "hadoop_put":
        return _hadoop_put(spark, folder, monkeypatch)
    openers: dict[str, Callable[[SparkSession, Path], Opened]] = {
        "local": _local,
        "local_uri": _local_uri,
        "hadoop_checksummed": _hadoop_checksummed,
        "hadoop_viewfs": _hadoop_viewfs,
    }
    return openers[request.param](spark, folder)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_create_makes_folders_and_refuses_an_existing_file(opened: Opened) -> None:
    filesystem, root, folder = opened
    filesystem.create(f"{root}/x/y/file", b"first")
    with pytest.raises(FileExistsError, match="file"):
        filesystem.create(f"{root}/x/y/file", b"second")
    assert filesystem.read_bytes(f"{root}/x/y/file") == b"first"
    assert _names(folder / "x" / "y") == ["file"], "no .crc and no temporary file may stay"


def test_replace_makes_and_overwrites_without_traces(opened: Opened) -> None:
    filesystem, root, folder = opened
    for content in (b"one", b"", b"three\x00\xff"):
        filesystem.replace(f"{root}/sub/_CURRENT", content)
        assert filesystem.read_bytes(f"{root}/sub/_CURRENT") == content
    assert _names(folder / "sub") == ["_CURRENT"]


def test_a_large_file_is_read_and_hashed_whole(opened: Opened) -> None:
    filesystem, root, folder = opened
    content = os.urandom(1 << 10) * 2_500
    filesystem.replace(f"{root}/large", content)
    assert (folder / "large").read_bytes() == content
    assert filesystem.read_bytes(f"{root}/large") == content
    assert filesystem.sha256(f"{root}/large") == hashlib.sha256(content).hexdigest()


def test_list_tells_name_size_kind_and_time(opened: Opened) -> None:
    filesystem, root, _ = opened
    filesystem.create(f"{root}/b", b"12345")
    filesystem.create(f"{root}/_temporary/part", b"1")
    filesystem.create(f"{root}/.x", b"")
    hidden, temporary, file = filesystem.list(root)
    assert [hidden.name, temporary.name, file.name] == [".x", "_temporary", "b"]
    assert (file.size, file.is_directory, temporary.size, temporary.is_directory) == (5, False, 0, True)
    assert abs(file.modified_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert filesystem.read_bytes(file.path) == b"12345", "a listed path can be opened"


def test_missing_paths(opened: Opened) -> None:
    filesystem, root, _ = opened
    assert not filesystem.exists(f"{root}/nothing")
    filesystem.delete(f"{root}/nothing")
    for call in (filesystem.list, filesystem.read_bytes, filesystem.sha256):
        with pytest.raises(FileNotFoundError, match="nothing"):
            call(f"{root}/nothing")


def test_list_of_a_file_is_refused(opened: Opened) -> None:
    filesystem, root, _ = opened
    filesystem.create(f"{root}/file", b"1")
    with pytest.raises(NotADirectoryError):
        filesystem.list(f"{root}/file")


def test_delete_removes_files_and_full_folders(opened: Opened) -> None:
    filesystem, root, folder = opened
    filesystem.create(f"{root}/file", b"1")
    filesystem.create(f"{root}/folder/_temporary/.part", b"1")
    filesystem.make_directories(f"{root}/empty/deep")
    for name in ("file", "folder", "empty"):
        assert filesystem.exists(f"{root}/{name}")
        filesystem.delete(f"{root}/{name}")
        assert not filesystem.exists(f"{root}/{name}")
    assert _names(folder) == []


def test_copies_of_folders_and_files_come_back_equal(opened: Opened, tmp_path: Path) -> None:
    filesystem, root, folder = opened
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "weights.npy").write_bytes(b"\x00\x01")
    (source / "deep" / "_note").write_text("é")
    filesystem.copy_from_local(source, f"{root}/run/model")
    assert _names(folder / "run" / "model") == ["deep", "weights.npy"]
    filesystem.copy_to_local(f"{root}/run/model", tmp_path / "scratch" / "model")
    filesystem.copy_to_local(f"{root}/run/model/weights.npy", tmp_path / "scratch" / "one.npy")
    assert (tmp_path / "scratch" / "model" / "deep" / "_note").read_text() == "é"
    assert (tmp_path / "scratch" / "one.npy").read_bytes() == b"\x00\x01"
    assert _names(tmp_path / "scratch") == ["model", "one.npy"]


def test_copies_never_merge_or_nest(opened: Opened, tmp_path: Path) -> None:
    filesystem, root, folder = opened
    source = tmp_path / "model"
    source.mkdir()
    (source / "file").write_bytes(b"1")
    filesystem.copy_from_local(source, f"{root}/model")
    with pytest.raises(FileExistsError):
        filesystem.copy_from_local(source, f"{root}/model")
    with pytest.raises(FileExistsError):
        filesystem.copy_to_local(f"{root}/model", source)
    with pytest.raises(FileNotFoundError):
        filesystem.copy_to_local(f"{root}/nothing", tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        filesystem.copy_from_local(tmp_path / "nothing", f"{root}/copy")
    assert _names(folder / "model") == ["file"]
    assert _names(tmp_path) == ["model", "root"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(opened: Opened, name: str) -> None:
    filesystem, root, folder = opened
    filesystem.create(f"{root}/{name}/{name}", b"1")
    filesystem.replace(f"{root}/{name}/{name}", b"22")
    assert (folder / name / name).read_bytes() == b"22"
    assert [(status.name, status.size) for status in filesystem.list(f"{root}/{name}")] == [(name, 2)]
    filesystem.delete(f"{root}/{name}")
    assert _names(folder) == []


def test_replace_takes_a_stale_checksum_file_away(tmp_path: Path, spark: SparkSession) -> None:
    (tmp_path / "pointer").write_bytes(b"old")
    (tmp_path / ".pointer.crc").write_bytes(b"crc\x00\x00\x00\x02\x00\x00\x00\x00\x00")
    LocalFileSystem().replace(f"{tmp_path}/pointer", b"new")
    assert [row.value for row in spark.read.text(str(tmp_path / "pointer")).collect()] == ["new"]


def test_qualify_gives_what_spark_resolves(opened: Opened, spark: SparkSession) -> None:
    filesystem, root, folder = opened
    qualified = filesystem.qualify(f"{root}/sub/../table/")
    assert qualified.endswith("/table")
    if not qualified.startswith("viewfs"):  # Spark does not know the mounts of this test
        spark.range(3).write.parquet(qualified)
        assert (folder / "table" / "_SUCCESS").exists()


def test_racing_local_creates_have_one_winner(tmp_path: Path) -> None:
    filesystem, barrier, winners = LocalFileSystem(), threading.Barrier(8), []

    def race(content: bytes) -> None:
        barrier.wait()
        try:
            filesystem.create(str(tmp_path / "lease"), content)
            winners.append(content)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=race, args=(b"%d" % number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [(tmp_path / "lease").read_bytes()]
    assert _names(tmp_path) == ["lease"]


def test_create_works_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links on this mount")

    monkeypatch.setattr(os, "link", refuse)
    filesystem = LocalFileSystem()
    filesystem.create(str(tmp_path / "file"), b"1")
    with pytest.raises(FileExistsError):
        filesystem.create(str(tmp_path / "file"), b"2")
    assert _names(tmp_path) == ["file"]


def test_a_failed_replace_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = LocalFileSystem()
    filesystem.replace(str(tmp_path / "file"), b"old")

    def fail(*_: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        filesystem.replace(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


def test_open_filesystem_by_scheme(spark: SparkSession, tmp_path: Path) -> None:
    assert isinstance(open_filesystem(str(tmp_path)), LocalFileSystem)
    assert isinstance(open_filesystem(str(tmp_path), spark), LocalFileSystem)
    assert isinstance(open_filesystem(f"file://{tmp_path}", spark), LocalFileSystem)
    with pytest.raises(SettingsError, match="needs a Spark session"):
        open_filesystem("s3a://bucket/recsys")
    with pytest.raises(SettingsError, match="No FileSystem for scheme"):
        open_filesystem("nope://bucket/recsys", spark)
    with pytest.raises(SettingsError, match="host 'server'"):
        open_filesystem("file://server/x").qualify("file://server/x")


def test_a_path_without_scheme_follows_sparks_default(spark: SparkSession, tmp_path: Path) -> None:
    spark.conf.set("fs.defaultFS", "viewfs://elsewhere/")
    try:
        with pytest.raises(SettingsError, match=r"elsewhere|[Mm]ount"):
            open_filesystem(str(tmp_path), spark)
    finally:
        spark.conf.unset("fs.defaultFS")
