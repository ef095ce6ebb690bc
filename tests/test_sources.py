from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from recsys_spark.config import Settings, load_settings
from recsys_spark.errors import RecsysError, SettingsError
from recsys_spark.sections import EntitySettings, EventColumns, EventSettings
from recsys_spark.sources import check_inputs, read_events, read_source, readable

COLUMNS = EventColumns(user="user", item="item", rating="stars", timestamp="at")
ROWS = [("ann", "tea", "4", "2024-03-01 10:00:00"), ("bob", "rye bread", "5", "2024-03-02 10:00:00")]
HEADER = "user,item,stars,at\n"


def events(path: Path | str, kind: str, **changes: Any) -> EventSettings:
    return EventSettings(path=str(path), format=kind, columns=COLUMNS, **changes)


def rows_of(frame: DataFrame) -> list[tuple[Any, ...]]:
    return sorted(tuple(str(value) for value in row) for row in frame.select("user", "item", "stars", "at").collect())


def settings_for(path: Path, kind: str, *overrides: str) -> Settings:
    file = path.parent / "settings.toml"
    file.write_text(
        f'[storage]\nroot = "{path.parent}/root"\n[events]\npath = "{path}"\nformat = "{kind}"\n'
        'columns = { user = "user", item = "item", rating = "stars", timestamp = "at" }\n'
    )
    return load_settings(file, overrides)


class TestFormats:
    @pytest.mark.parametrize("kind", ["parquet", "orc"])
    def test_columnar_files(self, spark: SparkSession, tmp_path: Path, kind: str) -> None:
        frame = spark.createDataFrame(ROWS, "user string, item string, stars string, at string")
        frame.write.format(kind).save(str(tmp_path / "events"))
        assert rows_of(read_events(spark, events(tmp_path / "events", kind))) == ROWS

    def test_a_table_by_name(self, spark: SparkSession) -> None:
        frame = spark.createDataFrame(ROWS, "user string, item string, stars string, at string")
        frame.createOrReplaceTempView("rated_items")
        assert rows_of(read_events(spark, events("rated_items", "table"))) == ROWS
        spark.catalog.dropTempView("rated_items")

    def test_json(self, spark: SparkSession, tmp_path: Path) -> None:
        lines = [dict(zip(COLUMNS.model_dump(exclude_none=True).values(), row, strict=True)) for row in ROWS]
        lines[0]["stars"] = 4  # type: ignore[assignment]
        (tmp_path / "events.json").write_text("\n".join(map(json.dumps, lines)))
        assert rows_of(read_events(spark, events(tmp_path / "events.json", "json"))) == ROWS

    def test_csv_follows_rfc_4180(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text(
            HEADER + '"say ""hi"", ann","back\\slash",4,2024-03-01\n"two\nlines",plain,5,2024-03-02\n'
        )
        found = rows_of(read_events(spark, events(tmp_path / "events.csv", "csv", options={"multiLine": "true"})))
        assert found == [
            ('say "hi", ann', "back\\slash", "4", "2024-03-01"),
            ("two\nlines", "plain", "5", "2024-03-02"),
        ]

    def test_csv_options_are_passed_on(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text("# a comment\nuser|item|stars|at\nann|tea|4|2024-03-01\n")
        options = {"sep": "|", "comment": "#"}
        found = rows_of(read_events(spark, events(tmp_path / "events.csv", "csv", options=options)))
        assert found == [("ann", "tea", "4", "2024-03-01")]

    def test_recbole_atomic_files(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "a.inter").write_text(
            'user:token\titem:token\tstars:float\tat:float\nann\tthe "best" tea\t4\t881250949\nbob\t12\t5\t881250950\n'
        )
        assert rows_of(read_events(spark, events(tmp_path / "a.inter", "recbole"))) == [
            ("ann", 'the "best" tea', "4", "881250949"),
            ("bob", "12", "5", "881250950"),
        ]

    def test_globs_and_folders(self, spark: SparkSession, tmp_path: Path) -> None:
        for name, row in zip(("a.csv", "b.csv"), ROWS, strict=True):
            (tmp_path / name).write_text(HEADER + ",".join(row) + "\n")
        assert rows_of(read_events(spark, events(tmp_path, "csv"))) == ROWS
        assert rows_of(read_events(spark, events(tmp_path / "[b]*.csv", "csv"))) == [ROWS[1]]

    def test_what_does_not_parse_is_kept_beside_the_rows(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text(HEADER + "ann,tea,4,2024-03-01\nann,tea\nann,tea,4,2024-03-01,more\n\n")
        found = read_events(spark, events(tmp_path / "events.csv", "csv")).collect()
        assert [row["_corrupt_record"] for row in found] == [None, "ann,tea", "ann,tea,4,2024-03-01,more"]
        (tmp_path / "events.json").write_text(
            '{"user": "ann", "item": "tea", "stars": 4, "at": "2024-03-01"}\n{"user": "ann", "it\n'
        )
        found = read_events(spark, events(tmp_path / "events.json", "json")).collect()
        assert [row["_corrupt_record"] for row in found] == [None, '{"user": "ann", "it']


class TestWhatIsNotThere:
    @pytest.mark.parametrize("kind", ["csv", "json", "parquet", "orc", "recbole"])
    def test_a_missing_path(self, spark: SparkSession, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "nothing"
        with pytest.raises(SettingsError, match=f"^items.path: '{path}' does not exist$"):
            read_source(spark, EntitySettings(path=str(path), format=kind, id="name"), "items")

    def test_a_missing_table(self, spark: SparkSession) -> None:
        with pytest.raises(SettingsError, match=r"^events.path: table 'no_such_table' does not exist$"):
            read_events(spark, events("no_such_table", "table"))

    @pytest.mark.parametrize("kind", ["csv", "parquet", "orc", "json"])
    def test_an_empty_folder(self, spark: SparkSession, tmp_path: Path, kind: str) -> None:
        with pytest.raises(SettingsError, match=f"^events.path: '{tmp_path}' holds no {kind} files$"):
            read_events(spark, events(tmp_path, kind))

    @pytest.mark.parametrize("kind", ["csv", "json"])
    def test_an_empty_file(self, spark: SparkSession, tmp_path: Path, kind: str) -> None:
        (tmp_path / "events").write_text("")
        with pytest.raises(SettingsError, match=r"^events.columns.user: the input has no column 'user'; it has none$"):
            read_events(spark, events(tmp_path / "events", kind))

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["events.columns.user=User"], "events.columns.user: the input has no column 'User'; it has user, item"),
            (["events.columns.rating=score"], "events.columns.rating: the input has no column 'score'"),
            (["events.columns.event_type=kind"], "events.columns.event_type: the input has no column 'kind'"),
            (["items.path={folder}/items.csv", "items.format=csv", "items.id=id"], "items.id: the input has no column"),
            (
                [
                    "users.path={folder}/items.csv",
                    "users.format=csv",
                    "users.id=name",
                    "users.attributes={age='years'}",
                ],
                "users.attributes.age: the input has no column 'years'; it has name, title",
            ),
        ],
    )
    def test_a_missing_column(self, spark: SparkSession, tmp_path: Path, overrides: list[str], message: str) -> None:
        (tmp_path / "events.csv").write_text(HEADER + "ann,tea,4,2024-03-01\n")
        (tmp_path / "items.csv").write_text("name,title\ntea,Tea\n")
        chosen = [override.replace("{folder}", str(tmp_path)) for override in overrides]
        with pytest.raises(SettingsError, match=re.escape(message)):
            check_inputs(spark, settings_for(tmp_path / "events.csv", "csv", *chosen))

    def test_inputs_that_are_there_pass(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "events.csv").write_text(HEADER + "ann,tea,4,2024-03-01\n")
        check_inputs(spark, settings_for(tmp_path / "events.csv", "csv"))


class TestBrokenFiles:
    """One of two files is cut short; the error is one line and names the file."""

    def test_a_truncated_parquet_file(self, spark: SparkSession, tmp_path: Path) -> None:
        folder = tmp_path / "events"
        columnar(spark, folder, "parquet")
        whole, path = sorted(folder.glob("*.parquet"))
        cut(path)
        assert failure(lambda: read_events(spark, events(folder, "parquet")).collect()) == path
        whole.unlink()
        assert failure(lambda: check_inputs(spark, settings_for(folder, "parquet"))) == path

    def test_a_truncated_orc_file(self, spark: SparkSession, tmp_path: Path) -> None:
        folder = tmp_path / "events"
        columnar(spark, folder, "orc")
        for path in folder.glob("*.orc"):
            cut(path)
        with pytest.raises(RecsysError) as caught:
            check_inputs(spark, settings_for(folder, "orc"))
        message = str(caught.value)
        assert message.startswith(f"events.path: {str(folder)!r} cannot be read as orc, a file of it is corrupt: ")
        assert "\n" not in message

    def test_a_truncated_gzip_file(self, spark: SparkSession, tmp_path: Path) -> None:
        folder = tmp_path / "events"
        folder.mkdir()
        path = folder / "b.csv.gz"
        lines = "".join(f"user {number},item {number * 7919 % 1000},4,2024-03-01\n" for number in range(20_000))
        (folder / "a.csv").write_text(HEADER + "ann,tea,4,2024-03-01\n")
        path.write_bytes(gzip.compress((HEADER + lines).encode()))
        assert read_events(spark, events(folder, "csv")).count() == 20_001
        cut(path)
        assert failure(lambda: read_events(spark, events(folder, "csv")).collect()) == path
        path.write_bytes(path.read_bytes()[:20])
        (folder / "a.csv").unlink()
        assert failure(lambda: check_inputs(spark, settings_for(folder, "csv"))) == path

    def test_a_file_with_other_columns(self, spark: SparkSession, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text(HEADER + "ann,tea,4,2024-03-01\n")
        (tmp_path / "b.csv").write_text("item,user,stars,at\ntea,ann,4,2024-03-01\n")
        assert failure(lambda: read_events(spark, events(tmp_path, "csv")).collect()) == tmp_path / "b.csv"

    def test_other_failures_pass_through(self) -> None:
        with pytest.raises(ZeroDivisionError), readable("events"):
            _ = 1 / 0


def columnar(spark: SparkSession, folder: Path, kind: str) -> None:
    """Two files of some rows."""
    frame = spark.createDataFrame(ROWS * 50, "user string, item string, stars string, at string")
    frame.repartition(2).write.format(kind).save(str(folder))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def failure(read: Callable[[], object]) -> Path:
    """The file named by the one-line error."""
    with pytest.raises(RecsysError) as caught, readable("events"):
        read()
    message = str(caught.value)
    match = re.fullmatch(
        r"events: file file:(?://)?(/\S+) is corrupt or not in the format the settings name; "
        "replace it or take it out of the input",
        message,
    )
    assert match is not None, message
    return Path(match[1])
