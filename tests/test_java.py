from __future__ import annotations

from pathlib import Path

import pytest

from recsys_spark.errors import SettingsError
from recsys_spark.java import java_problem, require_java


def fake_java(folder: Path, answer: str) -> Path:
    (folder / "bin").mkdir()
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{answer}' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize("version", ["17.0.15", "21", "21.0.2"])
def test_fitting_javas_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, f'openjdk version "{version}" 2025-04-15')))
    assert java_problem() is None


@pytest.mark.parametrize(("version", "named"), [("1.8.0_402", "Java 8"), ("11.0.2", "Java 11"), ("25", "Java 25")])
def test_other_javas_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, named: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, f'openjdk version "{version}"')))
    with pytest.raises(SettingsError, match=f"needs Java 17 or 21 and .* is {named}: install Java 17 or 21"):
        require_java()


def test_a_missing_java_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = java_problem()
    assert problem is not None
    assert problem.startswith("Spark needs Java and 'java' was not found: install Java 17 or 21")
    assert "\n" not in problem


def test_an_answer_without_a_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, "hello")))
    assert "does not tell its version" in str(java_problem())
