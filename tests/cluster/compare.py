"""Runs one night on a standalone cluster and in local mode and compares what they publish: `make cluster-test`.

The cluster is a master and two workers on loopback, from the pip wheel. The night is started by spark-submit in client
mode from a foreign folder; the executors' Python is the archive that `make package` builds.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from recsys_spark.tables import TABLES
from tests.cluster.contents import content_of, published_run
from tests.cluster.evidence import compilations, installed, python_tasks, watched_interpreters
from tests.cluster.processes import ProcessError, end_on_signals, run
from tests.cluster.standalone import SPARK_HOME, Cluster, running_cluster, spark_environment

ROOT = Path(__file__).parents[2]
ARCHIVE, SETTINGS = ROOT / "dist/executors.tar.gz", ROOT / "conf/demo.toml"
RUN_DATE, NEXT_DATE = "2026-11-22", "2026-11-23"
# A blend of all models, with reasons: such a night writes every table.
COMPONENTS = ("embedding", "popularity", "neighbors", "content", "ease", "graph_filter", "session_ease")
REQUESTED = Path(__file__).with_name("requested.csv")
EVERYTHING = {
    "recommend.model": "hybrid",
    "hybrid.components": json.dumps(COMPONENTS),
    "reasons.enabled": "true",
    "rules.boosts": '[{attribute = "genres", value = "Drama", factor = 1.2}]',
    "rules.deny_categories": '{genres = ["Horror"]}',
    "rules.active_days": "100000",
    "rules.requested_users": f'{{path = "{REQUESTED}", format = "csv"}}',
}
DRIVER_ONLY = {"tensorflow", "keras", "pydantic", "typer", "pyspark"}
CONF = {
    "spark.pyspark.python": "./environment/bin/python",
    "spark.pyspark.driver.python": sys.executable,
    "spark.executor.memory": "1g",
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    # Both executors before the first task, or one of them might do all the work.
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.eventLog.enabled": "true",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
    "spark.executorEnv.NUMBA_DEBUG_CACHE": "1",
}
RUN = "run to the end"
_NIGHT_S = 1200.0
_TAIL_LINES = 25


@dataclass
class Checks:
    """Prints each check as it is made and counts them."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, name: str, is_right: bool, facts: str) -> None:
        """Count a check and say what was found."""
        (self.passed if is_right else self.failed).append(name)
        print(f"{'ok' if is_right else 'FAILED':<6} {name}: {facts}", flush=True)


def main() -> int:
    """Run both nights, compare, clean up; 0 when all checks passed."""
    end_on_signals()
    checks, folder = Checks(), Path(tempfile.mkdtemp(prefix="recsys-spark-cluster-"))
    try:
        run_nights(checks, folder)
    except ProcessError as error:
        checks.add(RUN, False, str(error))
    except BaseException as error:
        checks.add(RUN, False, repr(error))
        raise
    finally:
        if checks.failed and not isinstance(sys.exception(), SystemExit):
            print_logs(folder)
        shutil.rmtree(folder, ignore_errors=True)
        print_verdict(checks)
    return 1 if checks.failed else 0


def run_nights(checks: Checks, folder: Path) -> None:
    """A night and a step alone on the cluster, then the night in local mode, which has the cores to itself."""
    on_cluster, in_local_mode = folder / "cluster-root", folder / "local-root"
    with running_cluster(folder) as cluster:
        print(f"cluster {cluster.url} with {len(cluster.workers)} workers; its folder is {folder}", flush=True)
        with watched_interpreters(cluster) as interpreters, timed("night on the cluster"):
            submit("nightly", cluster, folder, on_cluster, RUN_DATE)
        check_executors(checks, cluster, interpreters, folder / "events-nightly")
        with timed("the step ingest alone on the cluster"):
            submit("ingest", cluster, folder, on_cluster, NEXT_DATE)
        check_step(checks, on_cluster)
    with timed("night in local mode"):
        command = [str(Path(sys.executable).with_name("recsys-spark")), "run"]
        environment = spark_environment(folder)
        run([*command, *arguments(in_local_mode, RUN_DATE)], folder / "local.log", environment, ROOT, _NIGHT_S)
    check_tables(checks, published_run(on_cluster), published_run(in_local_mode))


def submit(job: str, cluster: Cluster, folder: Path, root: Path, run_date: str) -> None:
    """Start a job as an operator does, but from another folder."""
    events = folder / f"events-{job}"
    events.mkdir()
    conf = CONF | {"spark.eventLog.dir": events.as_uri()}
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    command = [str(SPARK_HOME / "bin/spark-submit"), "--master", cluster.url, "--deploy-mode", "client"]
    command += ["--archives", f"{ARCHIVE}#environment", *options, str(ROOT / f"jobs/{job}.py")]
    environment = spark_environment(folder)
    run([*command, *arguments(root, run_date)], folder / f"{job}.log", environment, folder, _NIGHT_S)


def arguments(root: Path, run_date: str) -> list[str]:
    """What follows the job's name, on the cluster and in local mode."""
    settings = {"storage.root": root, **EVERYTHING}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["--settings", str(SETTINGS), *options, "--run-date", run_date]


def check_executors(checks: Checks, cluster: Cluster, interpreters: dict[str, set[Path]], events: Path) -> None:
    """Both workers ran Python tasks, with the archive's interpreter, with no TensorFlow, each kernel compiled once."""
    tasks = python_tasks(next(events.iterdir()))
    for worker in cluster.workers:
        name, executors = worker.folder.name, worker.executors()
        done = sum(tasks[executor] for executor in executors)
        checks.add(f"{name} worked", done > 0, f"{done} of {tasks.total()} Python tasks, executors {[*executors]}")
        for executor in executors.values():
            environment = executor / "environment"
            seen, expected = interpreters[name], environment / "bin/python"
            checks.add(f"{name} ran the archive's Python", seen == {expected}, ", ".join(map(str, seen)) or "none seen")
            packages = installed(environment)
            facts = f"{len(packages)} packages there, of the driver's {sorted(packages & DRIVER_ONLY) or 'none'}"
            checks.add(f"{name} has no TensorFlow", bool(packages) and not packages & DRIVER_ONLY, facts)
            compiled, loaded = compilations(executor)
            is_once = bool(compiled) and set(compiled.values()) == {1}
            facts = f"{len(compiled)} kernels compiled {compiled.total()} times, loaded {loaded.total()} times"
            checks.add(f"{name} compiled each kernel once", is_once, facts)


def check_step(checks: Checks, root: Path) -> None:
    """The step alone has left a run to go on with, and readers still see the night before."""
    records = [path.stem for path in root.glob(f"runs/run_date={NEXT_DATE}/*/_steps/*.json")]
    is_alone = records == ["ingest"] and f"run_date={RUN_DATE}" in str(published_run(root))
    checks.add("a step alone", is_alone, f"finished {records}, readers see {published_run(root).parent.name}")


def check_tables(checks: Checks, on_cluster: Path, in_local_mode: Path) -> None:
    """Every table there is was written, and holds the same rows."""
    for table in TABLES:
        if not all((run / table.name).exists() for run in (on_cluster, in_local_mode)):
            checks.add(table.name, False, "not written by both nights")
            continue
        one, other = content_of(on_cluster / table.name), content_of(in_local_mode / table.name)
        facts = f"{one.rows:,} rows on the cluster, {other.rows:,} in local mode, SHA-256 {one.sha256[:12]}"
        is_same = one == other
        checks.add(table.name, is_same, facts if is_same else f"{facts} and {other.sha256[:12]}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def print_logs(folder: Path) -> None:
    """The last lines of every log, the executors' too."""
    for log in (*sorted(folder.glob("*.log")), *sorted(folder.glob("worker-*/app-*/*/stderr"))):
        print(f"--- {log.relative_to(folder)}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]))


def print_verdict(checks: Checks) -> None:
    """One line that says what was found, and the counts."""
    if RUN in checks.failed:
        print("Cluster and local mode were not compared: a run did not come to its end.")
    elif checks.failed:
        print(f"The cluster does not do what local mode does; failed: {', '.join(checks.failed)}")
    else:
        print("The cluster published what local mode publishes, to the last bit.")
    print(f"{len(checks.passed)} passed, {len(checks.failed)} failed", flush=True)


if __name__ == "__main__":
    sys.exit(main())
