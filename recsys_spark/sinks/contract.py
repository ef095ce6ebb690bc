"""What readers of every store give, whatever the store: no Spark here, applications import this."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

Recommendations = list[tuple[str, float]]
"""Item ids with their scores, best first."""


@dataclass(frozen=True)
class Served:
    """The run that a store serves, and the night it is of."""

    run_id: str
    run_date: date


class Reader(Protocol):
    """Answers from one run at a time; the next run is there at once or not at all."""

    def run(self) -> Served | None:
        """What is served; None before the first export."""
        ...

    def recommend(self, user_id: str, k: int | None = None) -> Recommendations | None:
        """The first `k` of a user's list, all of it when None; None for a user without one."""
        ...
