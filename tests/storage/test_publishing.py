from __future__ import annotations

import json
import multiprocessing
import threading
from collections import Counter
from datetime import date
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recsys_spark.storage import checksums
from recsys_spark.storage.errors import LeaseLostError, MissingTableError, StorageError
from recsys_spark.storage.hadoop_filesystem import HadoopFileSystem
from recsys_spark.storage.lease import hold_lease
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.manifest import read_manifest
from recsys_spark.storage.paths import Run
from recsys_spark.storage.pointer import current_run, point_to, read_current
from recsys_spark.storage.publishing import publish, rollback, verify_run
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import find_parent, list_runs, start_run
from tests.storage.conftest import DAY, SCORES, Nights, scores

FRIDAY, SATURDAY, SUNDAY = date(2026, 11, 20), date(2026, 11, 21), date(2026, 11, 22)


def _current(root: str) -> str | None:
    run = current_run(LocalFileSystem(), root)
    return run.run_id if run else None


def _values(spark: SparkSession, root: str) -> set[int]:
    return {row["value"] for row in read_current(spark, root, SCORES).collect()}


def test_nothing_is_visible_before_publishing(spark: SparkSession, root: str, written: Nights) -> None:
    storage = written()
    assert current_run(storage.filesystem, root) is None
    with pytest.raises(MissingTableError, match="no run is published"):
        read_current(spark, root, SCORES)
    assert publish(storage, {})
    assert _values(spark, root) == {1}
    with pytest.raises(MissingTableError, match="table other is not in the current run"):
        read_current(spark, root, "other")


def test_the_manifest_tells_what_the_run_holds(written: Nights, tmp_path: Path) -> None:
    storage = written()
    (tmp_path / "model" / "_hidden").mkdir(parents=True)
    (tmp_path / "model" / "_hidden" / "item embeddings.npy").write_bytes(b"123")
    storage.upload(tmp_path / "model", "model")
    storage.finish_step("recommend", {"lists": 4})
    secrets = {"spark": {"conf": {"fs.s3a.secret.key": "hunter2"}}, "url": "postgresql://me:pw@host/db", "top_k": 10}
    publish(storage, secrets, input_snapshot={"rows": 9}, metrics={"ndcg": 0.5, "nan": float("nan")})
    manifest = read_manifest(storage.filesystem, storage.run)
    table = manifest.tables["scores"]
    assert (table.rows, table.is_published, len(table.files)) == (4, True, 2)
    assert [field["name"] for field in table.columns["fields"]] == SCORES.schema.names
    assert all((Path(storage.run.path) / file.path).stat().st_size == file.bytes for file in table.files)
    (model,) = manifest.folders["model"].files
    assert model.path == "model/_hidden/item embeddings.npy"
    assert model.sha256 == "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3", "of the bytes 123"
    assert manifest.settings["spark"]["conf"]["fs.s3a.secret.key"] == "***"
    assert manifest.settings["url"] == "postgresql://***@host/db"
    assert (manifest.settings["top_k"], manifest.settings_digest, manifest.seeds) == (10, "digest", {"seed": 7})
    assert (manifest.input, manifest.metrics) == ({"rows": 9}, {"ndcg": 0.5, "nan": None})
    assert manifest.steps["recommend"]["details"] == {"lists": 4}
    assert manifest.libraries["pyspark"].startswith("4.")
    assert len(manifest.code.sha256) == 64
    text = Path(storage.run.manifest_path).read_text()
    assert "hunter2" not in text
    assert json.loads(text)["tables"]["scores"]["schema"]["type"] == "struct"


def test_a_large_file_is_hashed_by_the_driver_alike(
    spark: SparkSession, published: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = published()
    filesystem, run = storage.filesystem, storage.run
    sizes = checksums.table_files(filesystem, run, "scores")
    streamed = checksums.hash_files(filesystem, run, sizes, None)
    assert checksums.hash_files(filesystem, run, sizes, spark) == streamed
    assert checksums._hash_on_executors(spark, run, sizes) == streamed
    monkeypatch.setattr(checksums, "_SPARK_LIMIT_BYTES", min(sizes.values()) - 1)
    assert checksums._hash_on_executors(spark, run, sizes) == {}
    assert checksums.hash_files(filesystem, run, sizes, spark) == streamed
    hadoop = HadoopFileSystem(spark, f"file://{run.root}")
    assert checksums.hash_files(hadoop, run, sizes, None) == streamed


def test_a_run_published_through_hadoop_reads_the_same(spark: SparkSession, root: str, written: Nights) -> None:
    storage = written(3)
    remote = RunStorage(spark, HadoopFileSystem(spark, f"file://{root}"), storage.run)
    assert publish(remote, {})
    assert _values(spark, root) == {3}
    assert verify_run(storage.filesystem, storage.run, spark) == ()
    hidden = [
        path.name for path in Path(root).rglob(".*.crc") if "_SUCCESS" not in path.name and "part-" not in path.name
    ]
    assert hidden == [], "only Spark's own Parquet files have checksum files"


def test_publishing_again_finishes_a_broken_off_call(root: str, published: Nights) -> None:
    storage = published(1)
    manifest = Path(storage.run.manifest_path).read_bytes()
    Path(root, "_CURRENT").unlink()
    assert publish(storage, {"other": 1})
    assert _current(root) == storage.run.run_id
    assert Path(storage.run.manifest_path).read_bytes() == manifest, "a manifest never changes"


def test_an_unfinished_table_blocks_publishing(root: str, written: Nights, started: Nights) -> None:
    storage = written()
    Path(storage.run.table_path("similar_users")).mkdir()
    with pytest.raises(StorageError, match="holds unfinished similar_users"):
        publish(storage, {})
    assert not storage.is_published
    with pytest.raises(StorageError, match="nothing to publish"):
        publish(started(), {})
    assert _current(root) is None


def test_a_failing_write_leaves_the_old_run_current(
    spark: SparkSession, root: str, published: Nights, started: Nights
) -> None:
    old = published(1, SATURDAY)
    storage = started()
    failing = scores(spark, 2, rows=1000).withColumn(
        "value", F.when(F.col("user_id") != "u999", F.col("value")).otherwise(F.raise_error(F.lit("disk full")))
    )
    with pytest.raises(PySparkException, match="disk full"):
        storage.write(SCORES, failing)
    with pytest.raises(StorageError, match="unfinished scores"):
        publish(storage, {})
    assert _current(root) == old.run.run_id
    assert _values(spark, root) == {1}


def test_a_failing_pointer_leaves_the_old_run_current(
    spark: SparkSession, root: str, published: Nights, written: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(1, SATURDAY)
    storage = written(2)
    with monkeypatch.context() as patch:
        real = LocalFileSystem.replace

        def fail(self: LocalFileSystem, path: str, content: bytes) -> None:
            if path.endswith("_CURRENT"):
                raise OSError("disk full")
            real(self, path, content)

        patch.setattr(LocalFileSystem, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            publish(storage, {})
    assert _values(spark, root) == {1}
    assert publish(storage, {})
    assert _values(spark, root) == {2}


def test_a_backfill_does_not_move_the_pointer_unless_asked(root: str, published: Nights) -> None:
    published(1, SUNDAY, "sunday")
    published(2, FRIDAY, "friday")
    assert _current(root) == "sunday"
    published(3, SATURDAY, "saturday", move_pointer=True)
    assert _current(root) == "saturday"
    published(4, SUNDAY, "sunday-again", move_pointer=False)
    assert _current(root) == "saturday"
    published(5, SUNDAY, "sunday-third")
    assert _current(root) == "sunday-third"


def test_rollback_goes_to_the_run_before_and_back(root: str, filesystem: LocalFileSystem, published: Nights) -> None:
    for value, day, run_id in ((1, FRIDAY, "friday"), (2, SUNDAY, "sunday"), (3, SATURDAY, "backfill")):
        published(value, day, run_id)
    assert rollback(filesystem, root).run_id == "backfill"
    assert rollback(filesystem, root).run_id == "friday"
    assert _current(root) == "friday"
    with pytest.raises(StorageError, match="no run was published before"):
        rollback(filesystem, root)
    assert rollback(filesystem, root, "sunday").run_id == "sunday"
    assert _current(root) == "sunday"


def test_a_rolled_back_run_is_no_parent_and_is_not_published_again(
    root: str, filesystem: LocalFileSystem, published: Nights
) -> None:
    published(1, FRIDAY, "friday")
    bad = published(2, SATURDAY, "bad")
    rollback(filesystem, root)
    parent = find_parent(filesystem, root, SUNDAY)
    assert parent is not None
    assert parent.run_id == "friday"
    assert [info.is_withdrawn for info in list_runs(filesystem, root)] == [False, True]
    with pytest.raises(StorageError, match="was withdrawn"):
        publish(bad, {})
    rollback(filesystem, root, "bad")
    parent = find_parent(filesystem, root, SUNDAY)
    assert parent is not None
    assert parent.run_id == "bad"


def test_rollback_refuses_what_readers_could_not_use(
    root: str, filesystem: LocalFileSystem, published: Nights, written: Nights
) -> None:
    with pytest.raises(StorageError, match="nothing to go back from"):
        rollback(filesystem, root)
    broken = published(1, FRIDAY, "broken")
    published(2, SUNDAY, "sunday")
    written(3, SATURDAY, "unpublished")
    part = next(Path(broken.path(SCORES)).glob("part-*"))
    part.write_bytes(b"")
    for run_id, message in (
        ("unpublished", "run unpublished is not published"),
        ("nothing", "there is no run nothing"),
        ("broken", r"run broken is broken: scores/part-.* has 0 bytes, expected"),
        (None, "run broken is broken"),
    ):
        with pytest.raises(StorageError, match=message):
            rollback(filesystem, root, run_id)
    assert _current(root) == "sunday"


def test_a_rollback_checks_hashes_when_asked(root: str, filesystem: LocalFileSystem, published: Nights) -> None:
    older = published(1, FRIDAY, "friday")
    published(2, SUNDAY, "sunday")
    part = next(Path(older.path(SCORES)).glob("part-*"))
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(StorageError, match=r"run friday is broken: .* another SHA-256"):
        rollback(filesystem, root, should_hash=True)
    assert _current(root) == "sunday"


@pytest.mark.parametrize("content", [b"", b'{"run_id": "sun', b"[]", b"{}", b'{"format_version": 2}'])
def test_a_broken_pointer_is_named_and_repaired_by_a_rollback(
    root: str, filesystem: LocalFileSystem, published: Nights, content: bytes
) -> None:
    published(1, SUNDAY, "sunday")
    Path(root, "_CURRENT").write_bytes(content)
    with pytest.raises(StorageError, match="_CURRENT"):
        current_run(filesystem, root)
    rollback(filesystem, root, "sunday")
    assert _current(root) == "sunday"


def test_tampering_is_detected(filesystem: LocalFileSystem, spark: SparkSession, published: Nights) -> None:
    storage = published()
    run = storage.run
    first, second = sorted(Path(storage.path(SCORES)).glob("part-*"))
    original = first.read_bytes()
    assert verify_run(filesystem, run, spark) == ()

    first.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    first.with_name(f".{first.name}.crc").unlink(missing_ok=True)
    assert verify_run(filesystem, run, spark) == (f"scores/{first.name} has another SHA-256",)
    assert verify_run(filesystem, run) == (f"scores/{first.name} has another SHA-256",)
    assert verify_run(filesystem, run, should_hash=False) == ()
    first.write_bytes(original + b"1")
    assert verify_run(filesystem, run) == (
        f"scores/{first.name} has {len(original) + 1} bytes, expected {len(original)}",
    )
    first.write_bytes(original)
    second.rename(second.with_name("part-extra.parquet"))
    assert set(verify_run(filesystem, run)) == {
        f"scores/{second.name} is missing",
        "scores/part-extra.parquet is not in the manifest",
    }
    LocalFileSystem().delete(storage.path(SCORES))
    assert f"scores/{first.name} is missing" in verify_run(filesystem, run)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 99, "format version 99"),
        ("run_id", "other", "manifest of run other"),
        ("tables", {"scores": 1}, "broken at tables.scores"),
        ("published_at", "soon", "broken at published_at"),
        ("more", 1, "broken at more"),
    ],
)
def test_a_broken_manifest_is_named(published: Nights, key: str, value: object, message: str) -> None:
    storage = published()
    path = Path(storage.run.manifest_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(StorageError, match=message):
        read_manifest(storage.filesystem, storage.run)
    (problem,) = verify_run(storage.filesystem, storage.run)
    assert message in problem


def test_a_manifest_cannot_lead_out_of_its_run(published: Nights) -> None:
    storage = published()
    path = Path(storage.run.manifest_path)
    record = json.loads(path.read_text())
    record["tables"]["scores"]["files"][0]["path"] = "scores/../../../../etc/passwd"
    path.write_text(json.dumps(record))
    with pytest.raises(StorageError, match="leads out of the run"):
        read_manifest(storage.filesystem, storage.run)


def test_a_lost_lease_stops_publishing(root: str, filesystem: LocalFileSystem, written: Nights) -> None:
    storage = written()
    with hold_lease(filesystem, root, storage.run.run_id, 60) as lease:
        filesystem.delete(f"{root}/_LEASE")
        with pytest.raises(LeaseLostError, match="taken it over, or it was removed"):
            publish(storage, {}, lease=lease)
    assert not storage.is_published
    assert _current(root) is None


def _poll(root: str, stop: threading.Event, seen: Counter[str]) -> None:
    """A reader as any other tool would be: pointer, then every row of the table it names."""
    while not stop.wait(0.005):
        try:
            pointer = json.loads(Path(root, "_CURRENT").read_bytes())
            rows = ds.dataset(Path(root, pointer["path"], "scores"), format="parquet").to_table().to_pylist()
            assert len(rows) == 4, "the table was partial"
            assert {str(row["value"]) for row in rows} == {pointer["run_id"]}, "the table was of another run"
            seen[pointer["run_id"]] += 1
        except Exception as error:
            seen[f"failed: {error!r}"] += 1


def test_a_polling_reader_never_sees_a_gap(spark: SparkSession, root: str) -> None:
    def night(value: int) -> None:
        storage = start_run(spark, root, DAY, "digest", 7, run_id=str(value))
        storage.write(SCORES, scores(spark, value))
        publish(storage, {})

    night(1000)
    stop, seen = threading.Event(), Counter[str]()
    readers = [threading.Thread(target=_poll, args=(root, stop, seen)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for value in range(1001, 1021):
        night(value)
    stop.set()
    for reader in readers:
        reader.join()
    assert [text for text in seen if text.startswith("failed")] == []
    assert len(seen) > 10, "the reader must have met most of the runs"
    assert sum(seen.values()) > 100


def _count_bad_reads(root: str, names: list[str], bad: Synchronized[int]) -> None:
    bad.value = sum(not _is_whole(Path(root, "_CURRENT"), names) for _ in range(5_000))


def _is_whole(pointer: Path, names: list[str]) -> bool:
    """Read once, as `current_run` would try again."""
    try:
        return json.loads(pointer.read_bytes())["run_id"] in names
    except (OSError, ValueError):
        return False


def test_swaps_under_a_reader_in_another_process(root: str, filesystem: LocalFileSystem) -> None:
    """The pointer alone, swapped as fast as it goes: every read gives one of the two runs, whole."""
    runs = [Run(root, DAY, name) for name in ("a" * 20, "b" * 90)]
    point_to(filesystem, runs[0])
    spawn = multiprocessing.get_context("spawn")
    bad, swaps = spawn.Value("i", -1), 0
    reader = spawn.Process(target=_count_bad_reads, args=(root, [run.run_id for run in runs], bad))
    reader.start()
    while reader.is_alive():
        point_to(filesystem, runs[swaps % 2])
        swaps += 1
    assert swaps > 20
    assert bad.value == 0
