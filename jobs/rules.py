"""Judges which items may be listed, who gets a list, and what each user is not shown."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.rules import write_rules
from recsys_spark.storage.run_storage import RunStorage


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `item_rules` and `user_rules`."""
    if not settings.rules.is_on:
        return {"skipped": "[rules] says nothing"}
    return write_rules(storage, settings)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["rules", *sys.argv[1:]]))
