"""Runs one night on a standalone cluster and in local mode and compares what they publish: `make cluster-test`.

The cluster is a master and two workers on loopback, from the pip wheel. The night is started by spark-submit in client
mode; the executors' Python is the archive that `make package` builds.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recsys_spark.tables import TABLES
from tests.cluster.contents import content_of, published_run
from tests.cluster.evidence import compilations, installed, python_tasks, watched_interpreters
from tests.cluster.processes import ProcessError, clean_environment, end_on_signals, run
from tests.cluster.standalone import N_WORKERS, SPARK_HOME, Cluster, running_cluster, spark_environment

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT / "dist" / "executors.tar.gz"
SETTINGS = ROOT / "conf" / "demo.toml"
RUN_DATE, NEXT_DATE = "2026-11-22", "2026-11-23"
UNWANTED = {"tensorflow", "keras", "pydantic", "pyspark"}
_NIGHT_S = 1200.0
_TAIL_LINES = 30


@dataclass
class Checks:
    """Prints each check as it is made and counts them."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, name: str, is_right: bool, facts: str) -> None:
        """Count a check and say what was found."""
        (self.passed if is_right else self.failed).append(name)
        print(f"{'ok' if is_right else 'FAILED':<7} {name}: {facts}", flush=True)


def main() -> int:
    """Run both nights, compare, clean up; 0 when all checks passed."""
    end_on_signals()
    checks, folder = Checks(), Path(tempfile.mkdtemp(prefix="recsys-spark-cluster-"))
    try:
        run_nights(checks, folder)
    except ProcessError as error:
        checks.add("nights", False, str(error))
    except BaseException:
        checks.add("nights", False, "interrupted")
        raise
    finally:
        if checks.failed:
            print_logs(folder)
        shutil.rmtree(folder, ignore_errors=True)
        print_verdict(checks)
    return 1 if checks.failed else 0


def run_nights(checks: Checks, folder: Path) -> None:
    """The night on the cluster, a step alone there, the night in local mode; what each should show."""
    cluster_root, local_root = folder / "cluster-root", folder / "local-root"
    with timed("cluster started"), cluster_in(folder) as cluster:
        pass
"""placeholder"""
