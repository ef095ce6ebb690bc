from __future__ import annotations

import pytest

from recsys_spark.sinks.stores import reason_of

TRACEBACK = """[PYTHON_DATA_SOURCE_ERROR] Failed to commit: Traceback (most recent call last):
  File "a.py", line 1, in commit
    raise ValueError("first")
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in commit
recsys_spark.sinks.errors.ExportError: run r1 has 3 users
 SQLSTATE: 38000"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TRACEBACK, "run r1 has 3 users"),
        ("psycopg.errors.UniqueViolation: no unique index\nDETAIL:  Key (user_id)=(u0) is twice.", "no unique index"),
        ("plain words\nand more", "plain words"),
        ("", "RuntimeError"),
        (
            'java.io.IOException: Cannot run program "./environment/bin/python": error=2, No such file',
            "the driver's host has no ./environment/bin/python, with which an export starts and ends there: "
            "let it lead to the driver's environment",
        ),
    ],
)  # fmt: skip
def test_the_reason_is_what_was_raised(text: str, reason: str) -> None:
    assert reason_of(RuntimeError(text)) == reason
