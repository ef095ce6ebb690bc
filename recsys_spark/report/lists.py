"""The lists of users as people look at them: titles, and why an item is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.tables import ITEMS

if TYPE_CHECKING:
    from pyspark.sql import Row

    from recsys_spark.storage.run_storage import RunStorage


@dataclass(frozen=True)
class ListedItem:
    """An item of a list; no title where items have none, no reason where lists have none."""

    item_id: str
    title: str | None
    score: float
    why: str | None

    @property
    def name(self) -> str:
        """The title, or the id where there is none."""
        return self.title or self.item_id


@dataclass(frozen=True)
class UserList:
    """A row of `recommendations`; `left_out` counts the items that a short list lacks, by reason."""

    user_id: str
    tier: str
    items: tuple[ListedItem, ...]
    left_out: dict[str, int] | None


def read_lists(storage: RunStorage, rows: DataFrame, most: int | None = None) -> list[UserList]:
    """The lists of some rows of `recommendations`, few enough to print; the first `most` items of each."""
    found = rows.collect()
    titles = _titles_of(storage, {item_id for row in found for item_id in _ids_of(row)})
    return [
        UserList(
            row["user_id"],
            row["tier"],
            tuple(_listed(row, place, titles) for place in range(_length(row, most))),
            row["left_out"],
        )
        for row in found
    ]


def _titles_of(storage: RunStorage, item_ids: set[str]) -> dict[str, str]:
    """The titles of the items that have one."""
    title = F.col("attributes")["title"]
    items = storage.read(ITEMS).where(F.col("item_id").isin(*item_ids) & title.isNotNull())
    return {row["item_id"]: row["title"] for row in items.select("item_id", title.alias("title")).collect()}


def _ids_of(row: Row) -> list[str]:
    return [*row["item_ids"], *(item_id for named in row["because_item_ids"] or () for item_id in named)]


def _length(row: Row, most: int | None) -> int:
    length = len(row["item_ids"])
    return length if most is None else min(length, most)


def _listed(row: Row, place: int, titles: dict[str, str]) -> ListedItem:
    item_id = row["item_ids"][place]
    why = None if row["reasons"] is None else _why(row, place, titles)
    return ListedItem(item_id, titles.get(item_id), row["scores"][place], why)


def _why(row: Row, place: int, titles: dict[str, str]) -> str:
    reason, model = row["reasons"][place], _at(row, "reason_models", place)
    named = ", ".join(titles.get(item_id, item_id) for item_id in _at(row, "because_item_ids", place) or ())
    text = {
        "because_items": f"because of {named}",
        "new_item_content": f"new, like {named}" if named else "new",
        "because_users": f"{_at(row, 'neighbor_counts', place)} of the nearest users have it",
        "popular_in_segment": "popular in the user's segment",
    }.get(reason, reason)
    return text if model is None else f"{text} ({model})"


def _at(row: Row, column: str, place: int) -> Any:
    return None if row[column] is None else row[column][place]
