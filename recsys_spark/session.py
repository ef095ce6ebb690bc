"""The only builder of Spark sessions, and what a session needs from the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from recsys_spark.java import require_java

if TYPE_CHECKING:
    from recsys_spark.config import Settings


_LOGGING = Path(__file__).with_name("log4j2.properties")


def open_session(settings: Settings, name: str = "recsys-spark") -> SparkSession:
    """The Spark session of a night.

    Started by spark-submit it keeps the master and memory given there; otherwise it takes them from the settings.
    BLAS threads of the workers equal `spark.task.cpus`: more of them halve the speed.

    Raises:
        SettingsError: when no fitting Java is installed.
    """
    builder = SparkSession.builder.appName(name)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        require_java()
        # Without this, workers take the system's python3 and fail on their first import.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.master(settings.spark.master).config("spark.driver.memory", settings.spark.driver_memory)
        builder = builder.config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false")
        builder = builder.config("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}")
    for key, value in _defaults(settings).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _defaults(settings: Settings) -> dict[str, str]:
    threads = settings.spark.conf.get("spark.task.cpus", "1")
    return {
        "spark.sql.session.timeZone": settings.events.timezone,
        "spark.sql.shuffle.partitions": str(settings.spark.shuffle_partitions),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Spark's default is the deprecated INT96, which other readers of Parquet do not take.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": threads,
        "spark.executorEnv.OMP_NUM_THREADS": threads,
        "spark.executorEnv.MKL_NUM_THREADS": threads,
        # Redaction misses "pass" by default.
        "spark.redaction.regex": "(?i)secret|password|passwd|pass|token|access[.]?key",
        **settings.spark.conf,
    }
