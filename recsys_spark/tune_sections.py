"""The section of the settings about tuning: how many trials, on how many users, of which values."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from recsys_spark.sections import Section

TunedModel = Literal["embedding", "neighbors", "content", "ease", "graph_filter", "hybrid"]


class SearchSpace(Section):
    """What a setting is tried with: a range, of whole numbers where both ends are, or choices."""

    low: StrictInt | StrictFloat | None = Field(None, description="Least value.")
    high: StrictInt | StrictFloat | None = Field(None, description="Largest value, included.")
    log: bool = Field(False, description="Whether values are drawn evenly by their logarithm.")
    choices: tuple[StrictBool | StrictInt | StrictFloat | StrictStr, ...] | None = Field(
        None, description="The values, in the place of a range."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give low and high, or choices, not both")
            if len(set(self.choices)) < max(len(self.choices), 2):
                raise ValueError(f"choices must be at least two, none of them twice, got {list(self.choices)}")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 with log = true, got {self.low}")
        return self


class TuneSettings(Section):
    """The search for better values of settings, `recsys-spark tune`. A night does not read it."""

    trials: int = Field(30, ge=1, description="Trials in all, that of the settings as they are included.")
    users: int = Field(5_000, ge=2, description="About how many users the largest sample has.")
    min_users: int = Field(
        100, ge=2, description="About how many users the smallest sample has at least; fewer say little of a ranking."
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        description="A sample has so many times as many users as the one before, and about one in so many trials is "
        "measured on it, too.",
    )
    metric: Literal["ndcg", "recall", "precision", "hit_rate", "mrr", "map"] = Field(
        "ndcg", description="What is to become larger."
    )
    k: int = Field(10, ge=1, le=10_000, description="The length of the lists it is measured on.")
    spaces: dict[TunedModel, dict[str, SearchSpace]] = Field(
        default_factory=dict,
        description='What is tried, for a value of `recommend.model`: `spaces.ease."ease.l2" = { low = 50.0, '
        'high = 5000.0, log = true }`, whole numbers where both ends are, or `{ choices = ["none", "l2"] }`. A '
        "model that is not named has a space of its own.",
    )

    @property
    def measured(self) -> str:
        """The metric with the length of its lists, as people write it."""
        names = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "hit_rate": "HitRate"}
        return f"{names.get(self.metric, self.metric.capitalize())}@{self.k}"
