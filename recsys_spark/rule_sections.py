"""The section of the settings about which lists may be shown: eligible items, users who get lists, boosts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys_spark.kernels.boosts import MOST_BOOST
from recsys_spark.sections import Section, Source


class RuleSource(Source):
    """A table that rules read. Ids that are in no index are left out and counted; of `requested_users`, refused."""

    user: str = Field("user_id", description="Column of the user id, where the table is about users.")
    item: str = Field("item_id", description="Column of the item id, where the table is about items.")
    factor: str = Field("factor", description="Column of the factor, where the table is of boosts.")


class BoostSettings(Section):
    """What the scores of items of a category are multiplied by; several that an item has are multiplied."""

    attribute: str = Field(description="Attribute of `[items]`, split as categories are.")
    value: str = Field(min_length=1, description="The category, in any case.")
    factor: float = Field(
        ge=1 / MOST_BOOST, le=MOST_BOOST, description="Above 1 to boost, below 1 to demote; scores below 0 are divided."
    )


class RuleSettings(Section):
    """Rules that lists keep to: they stay full, because what may not be listed is not scored."""

    allow_items: RuleSource | None = Field(None, description="Table of `item_id`: no other item is listed.")
    deny_items: RuleSource | None = Field(None, description="Table of `item_id`: these are never listed.")
    allow_categories: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Attribute of `[items]` = its categories, one of which an item must have."
    )
    deny_categories: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Attribute of `[items]` = categories none of whose items is listed."
    )
    valid_from: str | None = Field(
        None,
        description="Attribute of `[items]`: a time before which the item is not listed. Lists count as shown from the "
        "end of the run date on; nothing means always.",
    )
    valid_to: str | None = Field(
        None, description="Attribute of `[items]`: a time from which on the item is not listed; nothing means never."
    )
    in_stock: str | None = Field(
        None,
        description="Attribute of `[items]`: `true` or a number above 0 where the item can be had; anything else, or "
        "nothing, keeps it out.",
    )
    deny_pairs: RuleSource | None = Field(
        None, description="Table of `user_id`, `item_id`: items that a user is not shown, such as blocked ones."
    )
    candidates: RuleSource | None = Field(
        None, description="Table of `user_id`, `item_id`: the users in it are shown nothing but these items."
    )
    seen_days: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Event type = days after which an item that a user has had so may be listed again; 0: at once. "
        "Types that are not named keep it out for good (`recommend.exclude_seen`).",
    )
    list_length: str | None = Field(
        None,
        description="Attribute of `[users]`: how many items the user gets, 0 for no list; at most, and where nothing "
        "is known, `recommend.top_k`.",
    )
    boosts: tuple[BoostSettings, ...] = Field((), description="Factors by category.")
    item_boosts: RuleSource | None = Field(None, description="Table of `item_id`, `factor`: factors by item.")
    active_days: float | None = Field(
        None,
        gt=0,
        description="Only users with an event in the last days of the run date, and requested ones, are scored.",
    )
    requested_users: RuleSource | None = Field(
        None,
        description="Table of `user_id`: these users are scored, and without `active_days` no others; what became of "
        "each is in the table `requested_users`.",
    )

    @property
    def is_on(self) -> bool:
        """Whether there is any rule."""
        return self != RuleSettings()

    @property
    def sources(self) -> dict[str, tuple[RuleSource, tuple[str, ...]]]:
        """The tables that are read, by name, and which columns of them."""
        columns = {
            "allow_items": ("item",),
            "deny_items": ("item",),
            "deny_pairs": ("user", "item"),
            "candidates": ("user", "item"),
            "item_boosts": ("item", "factor"),
            "requested_users": ("user",),
        }
        found = {name: getattr(self, name) for name in columns}
        return {name: (source, columns[name]) for name, source in found.items() if source is not None}

    @property
    def item_attributes(self) -> dict[str, str]:
        """Attributes of items that are read: setting -> attribute."""
        named = {name: getattr(self, name) for name in ("valid_from", "valid_to", "in_stock")}
        named |= {
            f"{part}.{name}": name for part in ("allow_categories", "deny_categories") for name in getattr(self, part)
        }
        named |= {f"boosts[{place}].attribute": boost.attribute for place, boost in enumerate(self.boosts)}
        return {setting: name for setting, name in named.items() if name is not None}
