"""The section of the settings about why items are in lists."""

from __future__ import annotations

from pydantic import Field

from recsys_spark.sections import Section


class ReasonSettings(Section):
    """Why each item is in a list, beside it in `recommendations`. Off by default."""

    enabled: bool = Field(False, description="Whether lists have reasons.")
    items: int = Field(
        2, ge=1, le=10, description="Of the user's own items, or his neighbors, how many are named for each item."
    )
    show_users: bool = Field(
        False,
        description="Whether the ids of neighbors may be named to the user; else they are counted (`neighbors`, or a "
        "blend with them).",
    )
