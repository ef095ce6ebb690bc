from __future__ import annotations

import pytest

from recsys_spark.sinks.pacing import ATTEMPTS, Pace, pause_s, retried


class Clock:
    """Time that passes only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_task_keeps_its_share() -> None:
    clock = Clock()
    pace = Pace(100.0, clock, clock.sleep)
    for _ in range(11):
        pace.wait(50)
    assert clock.now == pytest.approx(5.0), "500 users at 100 a second, and then the next 50"


def test_nobody_waits_without_a_limit() -> None:
    clock = Clock()
    pace = Pace(None, clock, clock.sleep)
    pace.wait(10**9)
    assert (clock.now, pace.step(7)) == (0.0, 7)


def test_with_a_limit_little_is_written_at_once() -> None:
    assert Pace(100.0).step(5_000) == 10
    assert Pace(0.5).step(5_000) == 1


def test_pauses_grow_and_end_growing() -> None:
    for attempt, most in ((1, 0.4), (2, 0.8), (20, 10.0)):
        pauses = [pause_s(attempt) for _ in range(500)]
        assert most * 0.8 < max(pauses) <= most, "by chance, up to all of it"
        assert min(pauses) < most * 0.2


def test_what_passes_is_tried_again() -> None:
    pauses: list[float] = []
    answers = iter([ConnectionError(), ConnectionError(), "there"])

    def work() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retried(work, lambda error: isinstance(error, ConnectionError), sleep=pauses.append) == "there"
    assert len(pauses) == 2


def test_what_does_not_pass_is_not_tried_again_and_nothing_is_tried_forever() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise ValueError

    with pytest.raises(ValueError):
        retried(fail, lambda error: False, sleep=lambda seconds: None)
    assert len(calls) == 1
    calls.clear()
    with pytest.raises(ValueError):
        retried(fail, lambda error: True, sleep=lambda seconds: None)
    assert len(calls) == ATTEMPTS
