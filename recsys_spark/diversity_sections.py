"""The section of the settings about lists that are re-ranked to be more diverse."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from recsys_spark.sections import Section

_POOL_FACTOR, _LARGEST_POOL = 5, 1000


class DiversitySettings(Section):
    """A re-rank of each user's best items, so that a list is more diverse than by score alone. Off by default."""

    weight: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="How much being unlike the items above counts, beside the score (maximal marginal relevance); "
        "items are compared by their content embeddings, or by those of the embedding model without `[content]`.",
    )
    category: str | None = Field(
        None,
        description="Attribute of `[items]` of whose values a list holds each a few times only; values are split as "
        "those of `content.categories`, and an item counts for each of its own.",
    )
    max_per_category: int | None = Field(
        None,
        ge=1,
        description="Most items of a value in a list; there are more where a list could not be filled from the "
        "candidates otherwise.",
    )
    candidates: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Best items of a user that a list is picked from. None: 5 x `recommend.top_k`, up to 1,000.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.category is None) != (self.max_per_category is None):
            raise ValueError("category and max_per_category need each other: name both or none")
        return self

    @property
    def is_on(self) -> bool:
        """Whether lists are re-ranked, so that their scores need not fall."""
        return self.weight > 0 or self.category is not None

    def pool(self, top_k: int) -> int:
        """How many candidates lists of `top_k` are picked from."""
        return self.candidates or max(top_k, min(_POOL_FACTOR * top_k, _LARGEST_POOL))
