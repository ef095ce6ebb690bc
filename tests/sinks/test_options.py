from __future__ import annotations

import pytest

from recsys_spark.errors import SettingsError
from recsys_spark.sinks.options import checked_run_date
from recsys_spark.sinks.redis_connection import RedisOptions

NEEDED = {"host": "h", "run_id": "r", "run_date": "2026-11-22", "users": "3"}


def test_options_survive_spark() -> None:
    options = RedisOptions("h", "r", "2026-11-22", 3, tls=True, user="ann", rate_limit=2.5)
    lowered = {key.lower(): value for key, value in options.as_texts().items()}
    assert RedisOptions.parse(lowered) == options
    assert RedisOptions.parse({"Host": "h", "runId": "r", "run_date": "2026-11-22", "USERS": "3"}).run_id == "r"


def test_wrong_options_are_named_without_their_values() -> None:
    with pytest.raises(SettingsError, match=r"unknown option password: there are .*password_env") as failure:
        RedisOptions.parse({**NEEDED, "password": "hunter2"})
    assert "hunter2" not in str(failure.value)
    with pytest.raises(SettingsError, match=r"an option is missing, one of .*host"):
        RedisOptions.parse({"run_id": "r"})
    with pytest.raises(SettingsError, match=r"should be a number"):
        RedisOptions.parse({**NEEDED, "port": "hunter2"})


def test_a_run_date_is_a_date() -> None:
    assert checked_run_date("2026-11-22") == "2026-11-22"
    with pytest.raises(SettingsError, match=r"'22.11.' is not a date"):
        checked_run_date("22.11.")
