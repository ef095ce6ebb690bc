"""Gives every user and item a position that stays the same from night to night."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.continuity import described_entities, known_index
from recsys_spark.sources import readable
from recsys_spark.storage.run_storage import RunStorage
from recsys_spark.tables import EVENTS, ITEMS, USERS
from recsys_spark.transforms.index import append_index, known_ids


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `users` and `items`."""
    events, entities = storage.read(EVENTS), described_entities(storage, settings)
    facts = {}
    for table, name in ((USERS, "user"), (ITEMS, "item")):
        ids = known_ids(events, f"{name}_id", entities.get(table.name))
        known = known_index(storage, table)
        known_count = 0 if known is None else known.count()
        with readable(table.name):
            facts[table.name] = storage.write(table, append_index(ids, known, known_count, name))
        facts[f"new_{table.name}"] = facts[table.name] - known_count
    return facts


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["index", *sys.argv[1:]]))
