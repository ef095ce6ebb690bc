from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from recsys_spark.errors import SettingsError
from recsys_spark.storage.errors import LeaseHeldError, LeaseLostError
from recsys_spark.storage.hadoop_filesystem import HadoopFileSystem
from recsys_spark.storage.lease import Lease, hold_lease, lease_holder
from recsys_spark.storage.lease_records import LeaseRecord, newest_generation, write_generation
from recsys_spark.storage.local_filesystem import LocalFileSystem
from recsys_spark.storage.processes import ProcessIdentity, is_gone, this_process
from recsys_spark.storage.records import utc_now

SPAWN = multiprocessing.get_context("spawn")
ELSEWHERE = ProcessIdentity("other-host", "other-host/boot/pid", 4242, "1")


COLLECTED_AT = utc_now()


def _record(process: ProcessIdentity = ELSEWHERE, age_s: float = 0.0, ttl_s: float = 60.0) -> LeaseRecord:
    moment = utc_now() - timedelta(seconds=age_s)
    return LeaseRecord("night-before", process, "token-before", ttl_s, moment, moment)


def _leave(root: str, record: LeaseRecord, number: int = 1) -> None:
    write_generation(LocalFileSystem(), root, number, record, is_new=True)


def _names(root: str) -> list[str]:
    return sorted(path.name for path in Path(root, "_LEASE").iterdir())


def _holder(root: str) -> str | None:
    holder = lease_holder(LocalFileSystem(), root)
    return holder.run_id if holder else None


def test_held_inside_and_free_after(root: str, filesystem: LocalFileSystem) -> None:
    for night in ("first", "second", "third"):
        with hold_lease(filesystem, root, night, 60) as lease:
            assert _holder(root) == night
            lease.ensure_held()
            assert len(_names(root)) == 1
        assert _holder(root) is None
        with pytest.raises(LeaseLostError, match="it was released"):
            lease.ensure_held()
    assert _names(root) == ["00000003.json"], "numbers only rise, old files go"


def test_a_second_night_is_told_who_holds_it(root: str, filesystem: LocalFileSystem) -> None:
    with hold_lease(filesystem, root, "first", 60) as lease:
        with pytest.raises(LeaseHeldError) as raised, hold_lease(filesystem, root, "second", 60):
            pytest.fail("two nights held the lease")
        message = str(raised.value)
        process = lease.record.process
        for part in ("run first", f"host {process.host}", f"pid {os.getpid()}", "since 20", "free at 20"):
            assert part in message
        lease.ensure_held()


def test_a_failing_night_frees_the_lease(root: str, filesystem: LocalFileSystem) -> None:
    with pytest.raises(ValueError, match="night failed"), hold_lease(filesystem, root, "first", 60):
        raise ValueError("night failed")
    assert _holder(root) is None


@pytest.mark.parametrize(
    ("record", "is_taken_over"),
    [
        (_record(), False),
        (_record(age_s=3600, ttl_s=86400), False),
        (_record(age_s=61), True),
        (replace(_record(), is_released=True), True),
        (_record(this_process()), False),
        (_record(replace(this_process(), started="1")), True),
        (_record(replace(this_process(), machine="a container of the same host name")), False),
    ],
    ids=["fresh", "long ttl", "no heartbeat", "released", "alive here", "pid reused", "other container"],
)
def test_who_may_be_taken_over(
    root: str, filesystem: LocalFileSystem, record: LeaseRecord, is_taken_over: bool
) -> None:
    # The records are made when the tests are collected; their ages count from now.
    _leave(root, replace(record, renewed_at=record.renewed_at + (utc_now() - COLLECTED_AT)))
    if is_taken_over:
        with hold_lease(filesystem, root, "next", 60):
            assert _names(root) == ["00000002.json"]
    else:
        with pytest.raises(LeaseHeldError, match="night-before"), hold_lease(filesystem, root, "next", 60):
            pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"run_id": 1}'])
def test_an_unreadable_lease_counts_for_one_ttl(root: str, filesystem: LocalFileSystem, content: bytes) -> None:
    filesystem.create(f"{root}/_LEASE/00000001.json", content)
    with pytest.raises(LeaseHeldError, match="just starting, or died"), hold_lease(filesystem, root, "next", 60):
        pass
    os.utime(Path(root, "_LEASE", "00000001.json"), (time.time() - 61, time.time() - 61))
    with hold_lease(filesystem, root, "next", 60) as lease:
        lease.ensure_held()


def test_the_heartbeat_outlives_the_ttl(root: str, filesystem: LocalFileSystem) -> None:
    with hold_lease(filesystem, root, "long night", 1.0) as lease:
        acquired = lease.record.renewed_at
        time.sleep(2.5)
        assert _holder(root) == "long night"
        assert lease.record.renewed_at > acquired
        lease.ensure_held()


def test_a_holder_that_was_overtaken_notices(root: str, filesystem: LocalFileSystem) -> None:
    with hold_lease(filesystem, root, "slow", 60) as lease:
        _leave(root, _record(), number=2)
        with pytest.raises(LeaseLostError, match=r"run slow lost the lease.*another night"):
            lease.ensure_held()
    assert _holder(root) == "night-before", "releasing a lost lease must not free the other's"
    assert _names(root) == ["00000001.json", "00000002.json"]


def test_a_holder_that_slept_too_long_does_not_go_on(root: str, filesystem: LocalFileSystem) -> None:
    """Even when nobody took over: someone may be doing so right now."""
    _leave(root, record := _record(this_process(), age_s=61))
    lease = Lease(filesystem, root, 1, record)
    with pytest.raises(LeaseLostError, match="not renewed for 60 s"):
        lease.ensure_held()
    assert _holder(root) is None


def test_an_outage_of_the_heartbeat_is_survived_and_seen(
    root: str, filesystem: LocalFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("file server is away")

    with hold_lease(filesystem, root, "night", 3.0) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(LocalFileSystem, "replace", fail)
            time.sleep(1.0)
            with pytest.raises(LeaseLostError, match="cannot be renewed: file server is away"):
                lease.ensure_held()
        lease.ensure_held()


def test_a_late_racer_steps_back(root: str, filesystem: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saw generation 1 expire, fell asleep, and wakes when 2 has come and gone and 3 is held."""
    _leave(root, _record(age_s=61))
    asleep = newest_generation(filesystem, root)
    with hold_lease(filesystem, root, "second", 60):
        pass
    with hold_lease(filesystem, root, "third", 60) as third:
        seen: Iterator[Any] = iter([asleep])

        def wake(files: LocalFileSystem, where: str) -> Any:
            return next(seen, None) or newest_generation(files, where)

        monkeypatch.setattr("recsys_spark.storage.lease.newest_generation", wake)
        with pytest.raises(LeaseHeldError, match="run third"), hold_lease(filesystem, root, "late", 60):
            pass
        third.ensure_held()
        assert _names(root) == ["00000003.json"]


def test_a_root_that_cannot_be_written(filesystem: LocalFileSystem, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match="cannot be written"), hold_lease(filesystem, f"{tmp_path}/file", "n", 60):
        pass


def test_the_lease_works_through_hadoop(spark: SparkSession, root: str, filesystem: LocalFileSystem) -> None:
    hadoop = HadoopFileSystem(spark, f"file://{root}")
    with hold_lease(hadoop, f"file://{root}", "remote", 60) as lease:
        lease.ensure_held()
        with pytest.raises(LeaseHeldError, match="run remote"), hold_lease(filesystem, root, "local", 60):
            pass
    with hold_lease(filesystem, root, "local", 60):
        assert _names(root) == ["00000002.json"]


def _race(root: str, number: int, barrier: Barrier, done: Event, winners: Any) -> None:
    filesystem = LocalFileSystem()
    barrier.wait()
    try:
        with hold_lease(filesystem, root, f"racer-{number}", 60) as lease:
            lease.ensure_held()
            winners.put(number)
            done.wait()
    except LeaseHeldError:
        winners.put(None)


@contextmanager
def _started(*processes: BaseProcess) -> Iterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.join(30)
            process.kill()


def test_of_eight_racers_for_a_stale_lease_one_wins(root: str) -> None:
    _leave(root, _record(age_s=61), number=7)
    barrier, done, winners = SPAWN.Barrier(8), SPAWN.Event(), SPAWN.Queue()
    racers = [SPAWN.Process(target=_race, args=(root, number, barrier, done, winners)) for number in range(8)]
    with _started(*racers):
        try:
            outcomes = [winners.get(timeout=60) for _ in racers]
        finally:
            done.set()
    won = [number for number in outcomes if number is not None]
    assert len(won) == 1
    assert _names(root) == ["00000008.json"]
    assert {racer.exitcode for racer in racers} == {0}


def _sit(root: str, is_ready: Event) -> None:
    with hold_lease(LocalFileSystem(), root, "killed night", 3600):
        is_ready.set()
        time.sleep(600)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="a zombie cannot be left on this system")
@pytest.mark.parametrize("is_reaped", [True, False], ids=["reaped", "zombie"])
def test_a_killed_holder_on_this_machine_is_followed_at_once(
    root: str, filesystem: LocalFileSystem, is_reaped: bool
) -> None:
    is_ready = SPAWN.Event()
    night = SPAWN.Process(target=_sit, args=(root, is_ready))
    with _started(night):
        try:
            assert is_ready.wait(60)
            assert _holder(root) == "killed night"
            with pytest.raises(LeaseHeldError, match=f"pid {night.pid}"), hold_lease(filesystem, root, "next", 60):
                pass
        finally:
            assert night.pid is not None
            os.kill(night.pid, signal.SIGKILL)
        if is_reaped:
            night.join()
        else:
            os.waitid(os.P_PID, night.pid, os.WEXITED | os.WNOWAIT)
        with hold_lease(filesystem, root, "next", 60) as lease:
            lease.ensure_held()


def test_a_stopped_holder_loses_to_its_successor(root: str, filesystem: LocalFileSystem) -> None:
    """SIGSTOP is a long pause of the whole process: it wakes up, notices, and publishes nothing."""
    code = (
        "import sys, time\n"
        "from recsys_spark.storage.errors import LeaseLostError\n"
        "from recsys_spark.storage.lease import hold_lease\n"
        "from recsys_spark.storage.local_filesystem import LocalFileSystem\n"
        "with hold_lease(LocalFileSystem(), sys.argv[1], 'stopped', 1.0) as lease:\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    try:\n"
        "        lease.ensure_held()\n"
        "    except LeaseLostError as error:\n"
        "        print(error, flush=True)\n"
    )
    night = subprocess.Popen(
        [sys.executable, "-c", code, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert night.stdout is not None
    assert night.stdout.readline() == "ready\n"
    night.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    with hold_lease(filesystem, root, "successor", 60) as lease:
        night.send_signal(signal.SIGCONT)
        out, _ = night.communicate("go\n", timeout=30)
        assert "run stopped lost the lease" in out
        lease.ensure_held()
        assert _holder(root) == "successor"


def test_processes_are_told_apart() -> None:
    here = this_process()
    assert not is_gone(here)
    assert is_gone(replace(here, started="1"))
    assert not is_gone(replace(here, machine="elsewhere", started="1"))
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert is_gone(replace(here, pid=child.pid))
    assert not is_gone(
        replace(this_process(), pid=1, started=Path("/proc/1/stat").read_text().split(")")[1].split()[19])
    )
