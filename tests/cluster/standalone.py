"""A standalone Spark cluster on loopback, started from the pip wheel: a master and two workers of one core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

from tests.cluster.processes import clean_environment, running, wait_for

SPARK_HOME = Path(pyspark.__file__).parent
LOOPBACK = "127.0.0.1"
N_WORKERS = 2
_MASTER, _WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
_START_S = 120.0


@dataclass(frozen=True)
class Worker:
    """A worker: its process, and the folder its executors live in."""

    process: psutil.Popen
    folder: Path

    def executors(self) -> dict[str, Path]:
        """The folders of the executors it has run, by executor id."""
        return {folder.name: folder for folder in sorted(self.folder.glob("app-*/*")) if folder.name.isdigit()}


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    url: str
    workers: tuple[Worker, ...]


def spark_environment(folder: Path) -> dict[str, str]:
    """An environment in which Spark binds to loopback, reads no configuration from outside, and fills `folder` only."""
    configuration, local = folder / "conf", folder / "local"
    for path in (configuration, local):
        path.mkdir(parents=True, exist_ok=True)
    return clean_environment(
        SPARK_HOME=str(SPARK_HOME),
        SPARK_CONF_DIR=str(configuration),
        SPARK_LOCAL_DIRS=str(local),
        SPARK_LOCAL_IP=LOOPBACK,
        # Since Spark 4.1 the master opens a REST port that submits to anyone who asks.
        SPARK_MASTER_OPTS="-Dspark.master.rest.enabled=false",
    )


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A master and its workers, all registered; stopped at the end. Ports are what the system has free."""
    environment = spark_environment(folder)
    spark_class, ports = str(SPARK_HOME / "bin" / "spark-class"), ("--port", "0", "--webui-port", "0")
    with ExitStack() as stack:
        log = folder / "master.log"
        command = [spark_class, _MASTER, "--host", LOOPBACK, *ports]
        master = stack.enter_context(running(command, log, environment, folder))
        url = wait_for(r"spark://[\d.]+:\d+", log, master, _START_S)[0]
        workers = []
        for number in range(1, N_WORKERS + 1):
            home, worker_log = folder / f"worker-{number}", folder / f"worker-{number}.log"
            size = ("--cores", "1", "--memory", "1g", "--work-dir", str(home))
            command = [spark_class, _WORKER, "--host", LOOPBACK, *ports, *size, url]
            process = stack.enter_context(running(command, worker_log, environment, folder))
            workers.append((Worker(process, home), worker_log))
        for worker, worker_log in workers:
            wait_for("Successfully registered with master", worker_log, worker.process, _START_S)
        yield Cluster(url, tuple(worker for worker, _ in workers))
