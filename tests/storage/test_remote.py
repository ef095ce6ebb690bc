"""The same promises on a real remote root: set RECSYS_SPARK_TEST_ROOT to an empty folder, such as hdfs://host/tmp/x.

Measured so on HDFS 2.7.3 (one name node, one data node) with the Hadoop 3.5 client of Spark 4.3.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest
from pyspark.sql import SparkSession

from recsys_spark.storage.errors import LeaseHeldError
from recsys_spark.storage.filesystem import FileSystem, open_filesystem
from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.pointer import read_current
from recsys_spark.storage.publishing import publish, rollback, verify_run
from recsys_spark.storage.runs import start_run
from tests.storage.conftest import DAY, SCORES, scores

ROOT = os.environ.get("RECSYS_SPARK_TEST_ROOT", "")
pytestmark = pytest.mark.skipif(not ROOT, reason="RECSYS_SPARK_TEST_ROOT names no remote root")
Remote = tuple[FileSystem, str]


@pytest.fixture
def remote(spark: SparkSession) -> Remote:
    return open_filesystem(ROOT, spark), f"{ROOT.rstrip('/')}/{uuid4().hex}"


def test_files(remote: Remote, tmp_path: Path) -> None:
    filesystem, root = remote
    content = os.urandom(1 << 10) * 2_500
    filesystem.create(f"{root}/a b/_file", content)
    with pytest.raises(FileExistsError):
        filesystem.create(f"{root}/a b/_file", b"2")
    assert filesystem.read_bytes(f"{root}/a b/_file") == content
    assert filesystem.sha256(f"{root}/a b/_file") == hashlib.sha256(content).hexdigest()
    filesystem.replace(f"{root}/a b/_file", b"3")
    assert [(entry.name, entry.size) for entry in filesystem.list(f"{root}/a b")] == [("_file", 1)]
    filesystem.copy_to_local(f"{root}/a b", tmp_path / "copy")
    filesystem.copy_from_local(tmp_path / "copy", f"{root}/back")
    assert filesystem.read_bytes(f"{root}/back/_file") == b"3"
    for missing in (filesystem.list, filesystem.read_bytes, filesystem.sha256):
        with pytest.raises(FileNotFoundError):
            missing(f"{root}/nothing")
    filesystem.delete(root)
    filesystem.delete(root)
    assert not filesystem.exists(root)


def test_racing_creates_have_one_winner(remote: Remote) -> None:
    filesystem, root = remote
    barrier, winners, losers = threading.Barrier(4), [], []

    def race(content: bytes) -> None:
        barrier.wait()
        try:
            filesystem.create(f"{root}/lease", content)
            winners.append(content)
        except FileExistsError:
            losers.append(content)

    racers = [threading.Thread(target=race, args=(b"%d" % number,)) for number in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert winners == [filesystem.read_bytes(f"{root}/lease")]
    assert len(losers) == 3


def _poll(filesystem: FileSystem, root: str, stop: threading.Event, seen: Counter[str]) -> None:
    while not stop.is_set():
        try:
            pointer = json.loads(filesystem.read_bytes(f"{root}/_CURRENT"))
            seen[pointer["run_id"]] += 1
        except Exception as error:
            seen[f"failed: {error!r}"] += 1


def test_nights_under_a_polling_reader(remote: Remote, spark: SparkSession, tmp_path: Path) -> None:
    filesystem, root = remote
    stop, seen = threading.Event(), Counter[str]()
    reader = threading.Thread(target=_poll, args=(filesystem, root, stop, seen))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_bytes(b"1")
    for value in range(20):
        with hold_lease(filesystem, root, f"night-{value}", 60) as lease:
            with pytest.raises(LeaseHeldError, match=f"night-{value}"), hold_lease(filesystem, root, "other", 60):
                pass
            storage = start_run(spark, root, DAY, "digest", 7, run_id=f"night-{value}")
            storage.write(SCORES, scores(spark, value))
            storage.upload(tmp_path / "model", "model")
            assert (storage.download("model", tmp_path / "scratch") / "file").read_bytes() == b"1"
            assert publish(storage, {}, lease=lease)
        if value == 0:
            reader.start()
    stop.set()
    reader.join()
    assert [text for text in seen if text.startswith("failed")] == []
    assert sum(seen.values()) > 100
    assert len(seen) > 10
    assert verify_run(filesystem, storage.run, spark) == ()
    assert rollback(filesystem, root).run_id == "night-18"
    assert {row["value"] for row in read_current(spark, root, SCORES).collect()} == {18}
    filesystem.delete(root)
