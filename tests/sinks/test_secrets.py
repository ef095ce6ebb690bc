"""Passwords are planted in the environment and in files, and then looked for in all that is written or printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from recsys_spark.config import Settings, load_settings
from recsys_spark.errors import SettingsError
from recsys_spark.storage.manifest import read_manifest
from tests.sinks.conftest import Publish
from tests.sinks.servers import HOST, PostgresServer, RedisServer

pytestmark = pytest.mark.slow

EXPORT_ALL = """
import json, sys, traceback
from recsys_spark.cli import main
for name in sys.argv[2:]:
    print(name, main(["export", "--settings", sys.argv[1], "--to", name]))
from pyspark.sql import SparkSession
spark = SparkSession.getActiveSession()
spark.sparkContext.setLogLevel("INFO")
# Once more from below, where nobody turns a traceback into a line.
schema = "user_id string, item_ids array<string>, scores array<float>, tier string"
frame = spark.createDataFrame([("u", ["i"], [0.5], "t")], schema)
for source, options in zip(("recsys_redis", "recsys_postgres"), json.load(sys.stdin)):
    try:
        frame.write.format(source).options(**options).mode("append").save()
    except Exception:
        traceback.print_exc()
spark.stop()
"""
WRONG = "planted-wrong-9d1c"


def test_no_password_is_written_anywhere(
    published: Publish, root: str, redis_at: RedisServer, postgres_at: PostgresServer, tmp_path: Path,
    exports: dict[str, dict[str, Any]],
) -> None:  # fmt: skip
    events = tmp_path / "events"
    events.mkdir()
    (tmp_path / "wrong").write_text(WRONG)
    by_file = {key: value for key, value in exports["redis"].items() if key != "password_file"}
    sections = {
        "redis": {**by_file, "password_env": "PLANTED"},
        "postgres": exports["postgres"],
        "wrong": {**exports["postgres"], "password_file": str(tmp_path / "wrong")},
    }  # fmt: skip
    conf = {"enabled": "true", "dir": f"file://{events}", "compress": "false"}
    conf = {f"spark.eventLog.{key}": value for key, value in conf.items()}
    content = {
        "storage": {"root": root},
        "events": {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}},
        "spark": {"driver_memory": "512m", "conf": conf},
        "exports": sections,
    }  # fmt: skip
    path = tmp_path / "settings.toml"
    path.write_bytes(tomli_w.dumps(content).encode())
    settings = load_settings(path)
    storage = published("r1", settings=settings)
    environment = {**os.environ, "PLANTED": redis_at.password}
    command = [sys.executable, "-c", EXPORT_ALL, str(path), *sections]
    wrong = {"host": HOST, "password_file": str(tmp_path / "wrong"), "run_id": "r", "run_date": "2026-11-22"}
    attempts = [
        {**wrong, "users": "1", "port": str(redis_at.port)},
        {**wrong, "users": "1", "port": str(postgres_at.port), "database": "serving", "user": "exporter"},
    ]
    done = subprocess.run(
        command, input=json.dumps(attempts), capture_output=True, text=True, env=environment, check=False
    )
    printed = done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if re.fullmatch(r"\w+ \d", line)] == [
        "redis 0", "postgres 0", "wrong 1",
    ], printed  # fmt: skip
    assert printed.count("Traceback") >= 2
    logs = "".join(file.read_text() for file in events.rglob("*") if file.is_file())
    assert "SparkListenerApplicationEnd" in logs
    assert "password_env" in printed + logs, "what says where it is may be seen"
    manifest = read_manifest(storage.filesystem, storage.run)
    written = [printed, logs, settings.model_dump_json(), repr(settings), manifest.model_dump_json(), path.read_text()]
    written += [file.read_text(errors="replace") for file in Path(root).rglob("*") if file.is_file()]
    for secret in (redis_at.password, postgres_at.password, WRONG):
        assert not [text for text in written if secret in text]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "redis", "host": "h", "password": "hunter2"}, "password cannot be set: settings hold no passwords"),
        ({"kind": "redis", "host": "h", "url": "redis://:hunter2@h"}, "url cannot be set"),
        ({"kind": "redis", "host": "redis://:hunter2@h"}, "host holds a URL with a password"),
        ({"kind": "redis", "host": "hunter2@h"}, "host: it must be the name or address of a host alone"),
        ({"kind": "redis", "host": "h", "password_env": "hunter2!"}, "not the password itself"),
        ({"kind": "redis", "host": "h", "port": "hunter2"}, "port: Input should be a valid integer"),
        ({"kind": "hunter2"}, "'redis', 'postgres', 'jsonl', 'csv', 'iceberg'"),
        ({"kind": "jsonl", "path": "s3a://key:hunter2@bucket/a"}, "path holds a URL with a password"),
        (
            {"kind": "iceberg", "warehouse": "/w", "catalog_uri": "postgresql://a:hunter2@h/d"},
            "catalog_uri holds a URL",
        ),
        ({"kind": "postgres", "host": "h", "database": "d", "passphrase": "hunter2"}, "passphrase cannot be set"),
        ({"kind": "redis", "host": "h", "note": "hunter2"}, "note: unknown setting"),
        ("hunter2", "Input should be a valid dictionary"),
    ],
)
def test_settings_with_a_password_are_refused_without_a_word_of_it(section: Any, message: str, tmp_path: Path) -> None:
    events = {"path": "/no/events", "columns": {"rating": "stars", "timestamp": "at"}}
    content = {"storage": {"root": "/r"}, "events": events, "exports": {"a": section}}
    path = tmp_path / "settings.toml"
    path.write_bytes(tomli_w.dumps(content).encode())
    with pytest.raises(SettingsError) as failure:
        load_settings(path)
    assert message in str(failure.value)
    cause = failure.value.__cause__
    if not (isinstance(section, dict) and section["kind"] == "hunter2"):  # a kind that is not there is named
        assert "hunter2" not in str(failure.value) + str(cause) + repr(cause)


def test_exports_are_no_part_of_the_digest() -> None:
    base = {"storage": {"root": "/r"}, "events": {"path": "/e", "columns": {"rating": "s", "timestamp": "t"}}}
    with_export = Settings(**base, exports={"a": {"kind": "redis", "host": "h"}})
    assert with_export.digest() == Settings(**base).digest()
    assert json.loads(with_export.model_dump_json())["exports"]["a"]["host"] == "h"
