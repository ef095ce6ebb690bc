"""Times contenders in turn, in one run, and keeps one JSON line a case."""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from recsys_spark.memory import MemorySampler

RESULTS = Path(__file__).parent / "results"
PROJECT, LIMIT = "project", "limit"

Work = Callable[[], object]


class NamedCase(Protocol):
    """A case of a benchmark."""

    @property
    def name(self) -> str:
        """What `--case` looks for."""
        ...


Case = TypeVar("Case", bound=NamedCase)
Chosen = TypeVar("Chosen")


def run_cases(
    description: str | None, small: Sequence[Case], full: Sequence[Case], run: Callable[[Case, int], None]
) -> None:
    """The command line of a benchmark: runs its cases on one thread of BLAS."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender runs after a warm-up")
    parser.add_argument("--case", default="", help="run the case of this name, or else those whose name contains it")
    options = parser.parse_args()
    cases = small if options.size == "small" else full
    with threadpool_limits(1):
        for case in chosen(parser, "--case", options.case, {case.name: case for case in cases}):
            run(case, options.rounds)


def chosen(parser: argparse.ArgumentParser, option: str, wanted: str, cases: Mapping[str, Chosen]) -> list[Chosen]:
    """The case of this name, or else those whose name contains it; ends the program where there is none."""
    found = [case for name, case in cases.items() if name == wanted]
    found = found or [case for name, case in cases.items() if wanted in name]
    if not found:
        of_size = " of this --size" if parser.get_default("size") else ""
        parser.error(f"{option} {wanted}: there are{of_size} {', '.join(cases)}")
    return found


def take_turns(
    contenders: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each contender, in rounds of one run each after a warm-up: drift hits all alike.

    With `time.thread_time` for a clock, of the processor.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            started = clock()
            work()
            if number > 0:
                seconds[name].append(clock() - started)
    return seconds


def peak_beyond(warm_up: Work, work: Work) -> int:
    """Bytes that this process holds at most while it works, beyond what it held after a warm-up; no mapped pages."""
    warm_up()
    ctypes.CDLL(None).malloc_trim(0)
    before = _private_bytes()
    with MemorySampler(_private_bytes) as sampler:
        work()
    return sampler.peak_bytes - before


def _private_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.findall(r"RssAnon:\s+(\d+) kB", text)[0]) * 1024


def report(benchmark: str, case: str, seconds: Mapping[str, list[float]], **more: Any) -> dict[str, Any]:
    """Print and keep the line of a case: medians, quartiles, and how the others compare with the project.

    `times_limit` and `times_faster` are medians of the rounds' ratios, so that drift cancels out.
    """
    project = np.array(seconds[PROJECT])
    peers = {name: values for name, values in seconds.items() if name not in (PROJECT, LIMIT)}
    line: dict[str, Any] = {"benchmark": benchmark, "case": case, "project_s": _median(project)}
    line["quartiles_s"] = [round(float(quartile), 6) for quartile in np.quantile(project, [0.25, 0.75])]
    if LIMIT in seconds:
        line["limit_s"] = _median(seconds[LIMIT])
        line["times_limit"] = _median(project / np.array(seconds[LIMIT]), 3)
    if peers:
        line["peers_s"] = {name: _median(values) for name, values in peers.items()}
        line["times_faster"] = {name: _median(np.array(values) / project, 2) for name, values in peers.items()}
    line = save(benchmark, line | more | {"rounds": len(project)})
    print(json.dumps(line), flush=True)
    return line


def save(benchmark: str, line: dict[str, Any]) -> dict[str, Any]:
    """Keep a line, with where and when it was measured, which is given back."""
    line |= {"machine": _machine(), "commit": _commit(), "date": _today()}
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{benchmark}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line


def _median(values: Any, digits: int = 6) -> float:
    return round(float(np.median(values)), digits)


def _machine() -> str:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} processors"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _commit() -> str:
    folder = Path(__file__).parent
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=folder)
    looked_at = ["../recsys_spark", ".", ":!results"]
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", *looked_at], capture_output=True, text=True, cwd=folder
    )
    return (commit.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
