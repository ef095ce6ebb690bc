from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from recsys_spark.blockwise.parts import WrittenPart
from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import MissingTableError, PublishedRunError, StorageError, TableSchemaError
from recsys_spark.storage.hadoop_filesystem import HadoopFileSystem
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.pointer import read_current
from recsys_spark.storage.publishing import publish, verify_run
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.storage.runs import open_run, start_run
from recsys_spark.storage.schemas import conform
from recsys_spark.tables import TIMESTAMP, Column, Table
from tests.storage.conftest import DAY, SCORES, Nights, scores


def _visible(path: str) -> list[str]:
    return sorted(entry.name for entry in Path(path).iterdir() if not entry.name.startswith((".", "_")))


def test_write_then_read_gives_the_rows_in_the_tables_columns(started: Nights) -> None:
    storage = started()
    assert not storage.exists(SCORES)
    assert storage.write(SCORES, scores(storage.spark, 5)) == 4
    assert storage.exists(SCORES)
    assert storage.count(SCORES) == 4
    frame = storage.read(SCORES)
    assert frame.columns == ["user_id", "value", "tags", "note"]
    assert sorted(tuple(row) for row in frame.collect()) == [(f"u{i}", 5, ["a", "b"], None) for i in range(4)]
    assert storage.path(SCORES) == f"{storage.run.root}/runs/run_date=2026-11-22/run_id={storage.run.run_id}/scores"


@pytest.mark.parametrize("is_without_partitions", [True, False])
def test_an_empty_frame_makes_a_readable_table(started: Nights, is_without_partitions: bool) -> None:
    storage = started()
    empty = storage.spark.createDataFrame([], SCORES.schema)
    if is_without_partitions:
        empty = storage.spark.createDataFrame(storage.spark.sparkContext.emptyRDD(), SCORES.schema)
    assert storage.write(SCORES, empty) == 0
    assert (storage.count(SCORES), storage.read(SCORES).count()) == (0, 0)


def _renamed(frame: DataFrame) -> DataFrame:
    return frame.withColumnRenamed("user_id", "User_Id")


def _twice(frame: DataFrame) -> DataFrame:
    return frame.select("*", F.lit(1).alias("note"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("value"), "table scores: column value is missing, expected bigint"),
        (lambda frame: frame.withColumn("more", F.lit(1)), "table scores: column more is not declared"),
        (lambda frame: frame.withColumn("value", F.lit(1)), "table scores: column value is int, expected bigint"),
        (
            lambda frame: frame.withColumn("tags", F.array(F.lit(1))),
            "column tags is array<int>, expected array<string>",
        ),
        (_renamed, "column User_Id is not declared; column user_id is missing, expected string"),
        (_twice, "column note is there 2 times"),
    ],
)
def test_wrong_columns_are_refused_before_anything_is_written(
    started: Nights, change: Callable[[DataFrame], DataFrame], message: str
) -> None:
    storage = started()
    with pytest.raises(TableSchemaError) as raised:
        storage.write(SCORES, change(scores(storage.spark, 1)))
    assert message in str(raised.value)
    assert not Path(storage.path(SCORES)).exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("value", "if(user_id = 'u2', null, value)", 'column value is null in the row {"user_id":"u2"}'),
        ("tags", "if(user_id = 'u2', null, tags)", 'column tags is null in the row {"user_id":"u2"}'),
        ("tags", "array('a', nullif(user_id, 'u3'))", 'column tags holds null in the row {"user_id":"u3"}'),
        ("user_id", "nullif(user_id, 'u3')", "column user_id is null in the row ; user_id is not nullable"),
    ],
)
def test_a_null_is_refused_naming_the_row(started: Nights, column: str, value: str, message: str) -> None:
    storage = started()
    with pytest.raises(TableSchemaError) as raised:
        storage.write(SCORES, scores(storage.spark, 1).withColumn(column, F.expr(value)))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not storage.exists(SCORES)


def test_proven_columns_cost_no_check(spark: SparkSession, started: Nights) -> None:
    """Ids of a range are never null, so Spark drops the check from the plan."""
    table = Table("ids", "Ids.", (Column("id", SCORES.columns[1].type, "Id."),), key=("id",))
    assert "raise_error" not in conform(table, spark.range(3))._jdf.queryExecution().optimizedPlan().toString()
    nullable = spark.range(3).select(F.nullif("id", F.lit(9)).alias("id"))
    assert "raise_error" in conform(table, nullable)._jdf.queryExecution().optimizedPlan().toString()


def test_a_failing_write_leaves_no_table_and_can_be_repeated(started: Nights) -> None:
    storage = started()
    failing = scores(storage.spark, 1).withColumn("value", F.raise_error(F.lit("worker lost")).cast("long"))
    with pytest.raises(PySparkException, match="worker lost"):
        storage.write(SCORES, failing)
    assert not storage.exists(SCORES)
    with pytest.raises(
        MissingTableError, match=f"scores is not there in run {storage.run.run_id}.*step recommend first"
    ):
        storage.read(SCORES)
    assert storage.write(SCORES, scores(storage.spark, 2)) == 4


def test_leftovers_of_a_crash_are_removed_before_writing(started: Nights) -> None:
    storage = started()
    leftover = Path(storage.path(SCORES)) / "_temporary" / "0"
    leftover.mkdir(parents=True)
    (leftover / "part").write_bytes(b"1")
    (leftover.parent.parent / "part-00000-old.parquet").write_bytes(b"not parquet")
    assert storage.write(SCORES, scores(storage.spark, 1)) == 4
    assert storage.read(SCORES).count() == 4


def test_an_unfinished_step_rewrites_and_a_finished_one_does_not(written: Nights, root: str) -> None:
    first = written(1)
    again = open_run(first.spark, root, first.run.run_id)
    assert again.write(SCORES, scores(again.spark, 2, rows=3)) == 3
    again.finish_step("recommend")
    for storage in (again, open_run(first.spark, root, first.run.run_id)):
        with pytest.raises(PublishedRunError, match=r"scores of run .* finished step recommend"):
            storage.write(SCORES, scores(storage.spark, 3))
    again.reopen_step("recommend")
    assert again.write(SCORES, scores(again.spark, 3)) == 4


def test_a_published_run_never_changes(published: Nights, tmp_path: Path) -> None:
    storage = published()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_bytes(b"1")
    for change in (
        lambda: storage.write(SCORES, scores(storage.spark, 2)),
        lambda: storage.upload(tmp_path / "model", "model"),
        lambda: storage.finish_step("late"),
        lambda: storage.reopen_step("late"),
    ):
        with pytest.raises(PublishedRunError, match="never changes"):
            change()


def test_steps_are_remembered_with_their_facts(written: Nights, root: str) -> None:
    storage = written()
    storage.finish_step("recommend", {"items": np.int64(3), "loss": np.float32(0.5), "bad": float("nan"), "on": DAY})
    storage.finish_step("audit", seconds=1.5, peak_memory_bytes=10)
    resumed = open_run(storage.spark, root, storage.run.run_id, "digest")
    for opened in (storage, resumed):
        assert opened.finished_steps() == ("recommend", "audit")
        assert opened.step_details("recommend") == {"items": 3, "loss": 0.5, "bad": None, "on": "2026-11-22"}
        assert opened.step_record("recommend")["rows"] == {"scores": 4}
        assert opened.step_record("recommend")["peak_memory_bytes"] > 1 << 20
        assert (opened.step_record("audit")["seconds"], opened.step_record("audit")["rows"]) == (1.5, {})
        with pytest.raises(StorageError, match=r"step train of run .* has not finished"):
            opened.step_details("train")
    assert resumed.count(SCORES) == 4


def test_a_resumed_run_keeps_its_settings_and_parent(published: Nights, started: Nights, root: str) -> None:
    parent = published(1, date(2026, 11, 20))
    storage = started()
    assert storage.run.parent == parent.run.run_id
    published(2, date(2026, 11, 21))
    assert open_run(storage.spark, root, storage.run.run_id, "digest").run == storage.run
    with pytest.raises(SettingsError, match="started with settings"):
        open_run(storage.spark, root, storage.run.run_id, "another")
    with pytest.raises(StorageError, match="no run nothing"):
        open_run(storage.spark, root, "nothing")


def test_the_parents_tables_and_facts(spark: SparkSession, written: Nights, started: Nights, root: str) -> None:
    first = written(1, date(2026, 11, 20))
    assert first.parent is None
    assert first.read_parent(SCORES) is None
    assert first.parent_details("recommend") == {}
    first.finish_step("recommend", {"range": [0, 5]})
    publish(first, {})
    second = started()
    parent = second.read_parent(SCORES)
    assert parent is not None
    assert {row["value"] for row in parent.collect()} == {1}
    assert second.parent_details("recommend") == {"range": [0, 5]}
    assert second.parent_details("train") == {}
    assert second.read_parent(Table("news", "New in this version.", SCORES.columns, key=())) is None


def test_a_lost_parent_is_an_error_not_a_fresh_start(published: Nights, started: Nights) -> None:
    parent = published(1, date(2026, 11, 20))
    second, third = started(), started()
    Path(parent.run.receipt_path("scores")).unlink()
    with pytest.raises(MissingTableError, match="scores"):
        second.read_parent(SCORES)
    LocalFileSystem().delete(parent.run.path)
    with pytest.raises(StorageError, match=f"builds on run {parent.run.run_id}"):
        third.read_parent(SCORES)


def test_a_table_of_another_version_is_refused(written: Nights) -> None:
    storage = written()
    wider = Table("scores", "", (*SCORES.columns, Column("new", SCORES.columns[1].type, "New.")), key=())
    with pytest.raises(TableSchemaError, match=r"scores of run .* another version: column new is missing"):
        storage.read(wider)
    with pytest.raises(TableSchemaError, match="another version"):
        storage.shared_folder(wider)


def test_tasks_may_open_the_files_of_local_roots_only(written: Nights, remote: RunStorage) -> None:
    storage = written()
    assert str(storage.shared_folder(SCORES)) == storage.path(SCORES)
    assert remote.shared_folder(SCORES) is None
    with pytest.raises(MissingTableError, match="missing is not there"):
        storage.shared_folder(Table("missing", "", SCORES.columns, key=()))


@pytest.mark.parametrize(("group_rows", "groups"), [(None, 1), (2, 4), (1, 7)])
def test_row_groups_are_as_large_as_the_table_says(started: Nights, group_rows: int | None, groups: int) -> None:
    storage = started()
    table = Table("scores", "", SCORES.columns, key=(), group_rows=group_rows)
    rows = storage.spark.createDataFrame([(f"u{i}", 5, ["a"], None) for i in range(7)], SCORES.schema)
    assert storage.write(table, rows.coalesce(1)) == 7
    (path,) = Path(storage.path(table)).glob("*.parquet")
    assert pq.read_metadata(path).num_row_groups == groups


def test_fetch_gives_the_own_folder_on_local_roots(written: Nights, tmp_path: Path) -> None:
    storage = written()
    folder = storage.fetch(SCORES, tmp_path / "scratch")
    assert str(folder) == storage.path(SCORES)
    assert not (tmp_path / "scratch").exists()
    with pytest.raises(MissingTableError):
        storage.download("model", tmp_path / "scratch")


def test_files_made_by_the_driver_become_a_table(started: Nights, tmp_path: Path) -> None:
    storage = started()
    rows = {"user_id": ["u1"], "value": [5], "tags": [["a"]], "note": pa.nulls(1, pa.float64())}
    for name, value in (("right", pa.array([5])), ("wrong", pa.array(["5"]))):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(rows | {"value": value}), tmp_path / name / "part-0.parquet")
    with pytest.raises(TableSchemaError, match="table scores: column value is string, expected bigint"):
        storage.write_files(SCORES, tmp_path / "wrong")
    assert not storage.exists(SCORES)
    assert storage.write_files(SCORES, tmp_path / "right") == 1
    assert [tuple(row) for row in storage.read(SCORES).collect()] == [("u1", 5, ["a"], None)]


@dataclass(frozen=True)
class Written:
    """A table of one user a file, written as tasks do; files of attempts that do not count lie beside."""

    spark: SparkSession
    users: tuple[str, ...]
    lost: str | None = None
    value: Any = 5

    @property
    def schema(self) -> StructType:
        return SCORES.schema

    def frame(self) -> DataFrame:
        return self.spark.createDataFrame([(user, 5, ["a"], None) for user in self.users], SCORES.schema)

    def write_parts(self, folder: Path, group_rows: int | None = None) -> list[WrittenPart]:
        found = []
        for user in (*self.users, "overtaken"):
            row = {"user_id": [user], "value": [self.value], "tags": [["a"]], "note": pa.nulls(1, pa.float64())}
            path = folder / f"part-{user}.parquet"
            pq.write_table(pa.table(row), path)
            found.append(WrittenPart(path.name, 1, path.stat().st_size))
        if self.lost:
            (folder / f"part-{self.lost}.parquet").unlink()
        return found[:-1]


def test_files_made_by_tasks_become_a_table(started: Nights, spark: SparkSession) -> None:
    storage = started()
    assert storage.write_mapped(SCORES, Written(spark, ("u1", "u2"))) == 2
    assert sorted(tuple(row) for row in storage.read(SCORES).collect()) == [
        ("u1", 5, ["a"], None),
        ("u2", 5, ["a"], None),
    ]
    assert sorted(path.name for path in Path(storage.path(SCORES)).iterdir()) == ["part-u1.parquet", "part-u2.parquet"]
    assert storage.count(SCORES) == 2


def test_a_table_without_rows_still_has_its_columns(started: Nights, spark: SparkSession) -> None:
    storage = started()
    assert storage.write_mapped(SCORES, Written(spark, ())) == 0
    assert storage.read(SCORES).collect() == []


def test_a_file_that_the_driver_does_not_see_is_an_error(started: Nights, spark: SparkSession) -> None:
    storage = started()
    with pytest.raises(StorageError, match=r"part-u2.parquet with .* bytes, which the driver does not see .* mount"):
        storage.write_mapped(SCORES, Written(spark, ("u1", "u2"), lost="u2"))
    assert not storage.exists(SCORES)
    assert storage.write_mapped(SCORES, Written(spark, ("u1", "u2"))) == 2  # what was left is removed
    assert storage.read(SCORES).count() == 2


def test_wrong_columns_are_refused_before_a_task_runs(started: Nights, spark: SparkSession) -> None:
    wider = Table("scores", "", (*SCORES.columns, Column("new", SCORES.columns[1].type, "New.")), key=())
    with pytest.raises(TableSchemaError, match="column new is missing"):
        started().write_mapped(wider, Written(spark, ("u1",)))


def test_files_with_other_columns_than_declared_are_refused(started: Nights, spark: SparkSession) -> None:
    storage = started()
    with pytest.raises(TableSchemaError, match="column value is string, expected bigint"):
        storage.write_mapped(SCORES, Written(spark, ("u1",), value="5"))
    assert not storage.exists(SCORES)


def test_spark_writes_where_tasks_cannot(started: Nights, spark: SparkSession) -> None:
    storage = started()
    remote = RunStorage(spark, HadoopFileSystem(spark, f"file://{storage.run.root}"), storage.run)
    assert remote.write_mapped(SCORES, Written(spark, ("u1", "u2"))) == 2
    assert sorted(row["user_id"] for row in remote.read(SCORES).collect()) == ["u1", "u2"]
    assert not list(Path(storage.path(SCORES)).glob("part-u*"))


@pytest.fixture
def remote(written: Nights, spark: SparkSession) -> RunStorage:
    """A written run, seen through Hadoop as on a cluster."""
    storage = written()
    hadoop = HadoopFileSystem(spark, f"file://{storage.run.root}")
    return RunStorage(spark, hadoop, storage.run)


def test_fetch_copies_from_remote_roots_and_replaces_old_copies(remote: RunStorage, tmp_path: Path) -> None:
    stale = tmp_path / "scratch" / remote.run.run_id / "scores" / "part-stale.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    folder = remote.fetch(SCORES, tmp_path / "scratch")
    assert _visible(str(folder)) == _visible(remote.path(SCORES))
    assert len(_visible(str(folder))) == 2


@pytest.mark.parametrize("is_remote", [False, True])
def test_upload_and_download(written: Nights, spark: SparkSession, tmp_path: Path, is_remote: bool) -> None:
    storage = written()
    if is_remote:
        storage = RunStorage(spark, HadoopFileSystem(spark, f"file://{storage.run.root}"), storage.run)
    model = tmp_path / "model"
    (model / "parts").mkdir(parents=True)
    (model / "items.npy").write_bytes(b"12345")
    (model / "parts" / "0.npy").write_bytes(b"1")
    storage.upload(model, "model")
    (model / "items.npy").write_bytes(b"123")
    storage.upload(model, "model")
    copy = storage.download("model", tmp_path / "scratch")
    assert (copy / "items.npy").read_bytes() == b"123"
    assert (copy / "parts" / "0.npy").read_bytes() == b"1"
    assert (copy == tmp_path / "scratch" / storage.run.run_id / "model") is is_remote
    Path(storage.path("model"), "items.npy").write_bytes(b"")
    with pytest.raises(StorageError, match=r"not as uploaded: see items.npy"):
        storage.download("model", tmp_path / "scratch")


def test_what_is_discarded_is_gone_until_its_step_is_finished(started: Nights, tmp_path: Path) -> None:
    storage = started()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.npy").write_bytes(b"a")
    storage.discard("model")
    storage.upload(tmp_path / "model", "model")
    storage.discard("model")
    assert not storage.exists("model")
    storage.finish_step("train")
    assert storage.step_record("train")["rows"] == {}
    storage.reopen_step("train")
    storage.upload(tmp_path / "model", "model")
    storage.finish_step("train")
    with pytest.raises(PublishedRunError, match="finished step train"):
        storage.discard("model")


def test_a_half_upload_does_not_look_finished(started: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = started()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_bytes(b"1")
    storage.upload(tmp_path / "model", "model")

    def half(self: LocalFileSystem, source: Path, path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "file").write_bytes(b"1")
        raise OSError("network went away")

    monkeypatch.setattr(LocalFileSystem, "copy_from_local", half)
    with pytest.raises(OSError, match="network"):
        storage.upload(tmp_path / "model", "model")
    assert not storage.exists("model")
    with pytest.raises(MissingTableError, match="model is not there"):
        storage.download("model", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="holds no file"):
        storage.upload(tmp_path / "empty", "model")


@pytest.mark.parametrize("name", ["../other", "a/b", "", "_model", ".model", "model.tmp", "x" * 200, "a b", "run_id=1"])
def test_hostile_names_are_refused(started: Nights, tmp_path: Path, name: str) -> None:
    storage = started()
    (tmp_path / "file").write_bytes(b"1")
    for call in (lambda: storage.upload(tmp_path, name), lambda: storage.finish_step(name), lambda: storage.path(name)):
        with pytest.raises(SettingsError, match="cannot be used"):
            call()
    with pytest.raises(SettingsError, match="run id"):
        started(run_id=name)


@pytest.mark.parametrize("name", ["a b", "100%20", "é日", "[x]{y,z}*?", "#frag", "a=b"])
def test_hostile_roots(spark: SparkSession, tmp_path: Path, name: str) -> None:
    for root in (str(tmp_path / name), f"file://{tmp_path}/{name}/"):
        storage = start_run(spark, root, DAY, "digest", 7)
        storage.write(SCORES, scores(spark, 1))
        publish(storage, {})
        assert verify_run(storage.filesystem, storage.run, spark) == ()
        assert read_current(spark, root, SCORES).count() == 4
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_timestamps_and_long_values_survive(started: Nights) -> None:
    storage = started()
    table = Table("times", "Times.", (Column("at", TIMESTAMP, "Time."),), key=("at",))
    frame = storage.spark.createDataFrame([("2026-11-22 03:15:00.123456",)], "at string")
    storage.write(table, frame.select(F.to_timestamp("at").alias("at")))
    schema = StructType([StructField("at", TIMESTAMP)])
    assert storage.read(table).schema == schema
    assert storage.read(table).select(F.col("at").cast("string")).first() == ("2026-11-22 03:15:00.123456",)
