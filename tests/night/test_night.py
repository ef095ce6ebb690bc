from __future__ import annotations

import datetime

import pytest

from recsys_spark import night
from recsys_spark.config import Settings
from recsys_spark.errors import AuditError, RecsysError, SettingsError
from recsys_spark.night import StepFailedError, parse_run_date


def test_today_is_the_date_in_the_time_zone_of_the_events() -> None:
    """26 hours lie between these zones, so their dates always differ."""

    def today(zone: str) -> datetime.date:
        events = {"path": "/x", "timezone": zone, "columns": {"rating": "stars", "timestamp": "at"}}
        return night.today(Settings(storage={"root": "/x"}, events=events))  # type: ignore[arg-type]

    assert (today("Pacific/Kiritimati") - today("Etc/GMT+12")).days in (1, 2)


def test_run_dates_are_iso_dates() -> None:
    assert parse_run_date(None) is None
    assert parse_run_date("2024-02-29") == datetime.date(2024, 2, 29)
    for text in ("", "2023-02-29", "today", "2024-02-29T10:00:00"):
        with pytest.raises(SettingsError, match="is not a date of the form 2026-11-22"):
            parse_run_date(text)


@pytest.mark.parametrize(
    ("cause", "reason", "code", "is_unexpected"),
    [
        (RecsysError("disk full."), "disk full", 1, False),
        (SettingsError("no such column"), "no such column", 2, False),
        (AuditError("too few"), "too few", 3, False),
        (ValueError("one line"), "ValueError: one line", 1, True),
        (RuntimeError("Aborted\n  at spark\nValueError: odd row\n"), "RuntimeError: ValueError: odd row", 1, True),
        (KeyError(), "KeyError: ", 1, True),
    ],
)  # fmt: skip
def test_a_failed_step_tells_why_in_one_line(cause: Exception, reason: str, code: int, is_unexpected: bool) -> None:
    error = StepFailedError("train", "20240309T000000Z-abcdef", cause)
    assert str(error).startswith(f"step train failed: {reason}")
    assert str(error).endswith("recsys-spark run --resume 20240309T000000Z-abcdef")
    assert "\n" not in str(error)
    assert (error.exit_code, error.is_unexpected) == (code, is_unexpected)
