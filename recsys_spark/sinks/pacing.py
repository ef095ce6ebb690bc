"""How fast to write, and how long to wait before trying again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

ATTEMPTS, FEW_ATTEMPTS = 8, 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0


class Pace:
    """Keeps one task at its share of the rate limit, in users a second; None is as fast as it goes."""

    def __init__(
        self,
        users_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = users_per_s, clock, sleep
        self._started, self._users = clock(), 0

    def step(self, users: int) -> int:
        """How many of some users to write at once: all, or a tenth of a second's where there is a limit."""
        return max(1, users if self._rate is None else min(users, int(self._rate / 10)))

    def wait(self, users: int) -> None:
        """Wait until these users are due; call it before they are written."""
        if self._rate is None:
            return
        ahead = self._users / self._rate - (self._clock() - self._started)
        if ahead > 0:
            self._sleep(ahead)
        self._users += users


def pause_s(attempt: int) -> float:
    """Seconds before attempt 1, 2, ...: twice as long each time, by chance up to all of it (full jitter)."""
    return random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))


def retried(
    work: Callable[[], Answer],
    is_transient: Callable[[Exception], bool],
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """The work's answer; what fails for a passing reason is tried again, some 16 s long, so it must be idempotent."""
    for attempt in range(1, attempts):
        try:
            return work()
        except Exception as error:
            if not is_transient(error):
                raise
            sleep(pause_s(attempt))
    return work()
