"""Measures how soon executors compute with a given environment: `python -m tests.cluster.archives ARCHIVE_OR_PEX...`.

Prints one JSON line for each: its megabytes, the seconds from spark-submit to the first result of a compiled kernel on
both executors, and the seconds of a second job. What a run leaves on the hosts is removed before the next one.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.compare import CONF
from tests.cluster.processes import ProcessError, end_on_signals, run
from tests.cluster.standalone import SPARK_HOME, Cluster, running_cluster, spark_environment

PROBE = Path(__file__).with_name("probe.py")
_LIMIT_S = 600.0
_TAIL_LINES = 25


def main(environments: list[str]) -> None:
    """Measure each environment on a cluster of its own."""
    end_on_signals()
    for environment in environments:
        path = Path(environment).resolve()
        with (
            tempfile.TemporaryDirectory(prefix="recsys-spark-archives-") as folder,
            running_cluster(Path(folder)) as cluster,
        ):
            seconds = measure(path, cluster, Path(folder))
        print(json.dumps({"environment": path.name, "mb": path.stat().st_size >> 20, **seconds}), flush=True)


def measure(path: Path, cluster: Cluster, folder: Path) -> dict[str, object]:
    """Submit the probe with an environment and give what it printed."""
    conf = CONF | {"spark.eventLog.enabled": "false"}
    if path.suffix == ".pex":
        shipping = ("--files", str(path))
        conf |= {
            "spark.pyspark.python": f"./{path.name}",
            "spark.executorEnv.PEX_ROOT": str(folder / "pex-root"),
            "spark.executorEnv.PEX_INHERIT_PATH": "fallback",  # pyspark is found by PYTHONPATH
        }
    else:
        shipping = ("--archives", f"{path}#environment")
    options = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    command = [str(SPARK_HOME / "bin/spark-submit"), "--master", cluster.url, *shipping, *options, str(PROBE)]
    log = folder / "probe.log"
    try:
        run([*command, str(time.time())], log, spark_environment(folder), folder, _LIMIT_S)
    except ProcessError:
        print("\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]), file=sys.stderr)
        raise
    printed: dict[str, object] = json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))
    return printed


if __name__ == "__main__":
    main(sys.argv[1:])
