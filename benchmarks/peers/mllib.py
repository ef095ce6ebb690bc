"""Spark MLlib's ALS for implicit feedback (Hu, Koren and Volinsky, ICDM 2008), on a local session of two cores.

Its own `recommendForAllUsers` takes minutes, so scores are products of its factors, which is what it ranks by, too. A
seen pair weighs 1 + `alpha`, and the penalty of a row is `regParam` for each of its pairs. Fifteen passes, as
implicit's ALS has; its default is ten.

Its linear algebra is that of the machine's `libblas.so.3` and `liblapack.so.3` where there are, such as Debian's
`libopenblas0`; else it is Java's, three times slower at rank 192.
"""

from __future__ import annotations

import atexit
import os
import tempfile
import time
from contextlib import ExitStack
from functools import cache

import numpy as np
import pandas as pd
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame, SparkSession

from benchmarks.jobs import spark_session
from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.peers.plain import by_vectors
from benchmarks.peers.whole_data import DEFAULTS, space_up_to, terms_of
from benchmarks.quality import SEED
from benchmarks.ranking import Floats
from recsys_spark.models.interactions import TrainingPairs

PARTITIONS, PASSES = 4, 15


@cache
def session() -> SparkSession:
    """One for all fits, until the process ends.

    With a folder for checkpoints, which ALS then writes every ten steps: without, twenty overflow the stack. OpenBLAS
    has one thread for each of Spark's: with two, a fit of rank 128 took six times as long.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the JVM's; libraries of this process have read it before
    sessions = ExitStack()
    atexit.register(sessions.close)
    spark = sessions.enter_context(spark_session())
    folder = sessions.enter_context(tempfile.TemporaryDirectory(prefix="mllib-checkpoints-"))
    spark.sparkContext.setCheckpointDir(folder)
    return spark


def als(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    columns = {"user": pairs.user_idx, "item": pairs.item_idx, "rating": np.ones(len(pairs), np.float32)}
    ratings = session().createDataFrame(pd.DataFrame(columns)).repartition(PARTITIONS).cache()
    ratings.count()
    terms, started = terms_of(pairs, settings), time.perf_counter()
    model = ALS(
        implicitPrefs=True,
        userCol="user",
        itemCol="item",
        ratingCol="rating",
        seed=SEED,
        maxIter=PASSES,
        rank=settings["embedding_dim"],
        regParam=terms.of_pair,
        alpha=terms.extra,
    )
    model = model.fit(ratings)
    factors = [factors_of(model.userFactors, pairs.n_users), factors_of(model.itemFactors, pairs.n_items)]
    seconds = time.perf_counter() - started
    ratings.unpersist()
    return Fitted(by_vectors(*factors), seconds)


def factors_of(frame: DataFrame, rows: int) -> Floats:
    """Of all rows, (rows, rank); zeros of those without pairs."""
    found = frame.toPandas()
    vectors = np.stack(found["features"].to_list()).astype(np.float32)
    factors = np.zeros((rows, vectors.shape[1]), np.float32)
    factors[found["id"].to_numpy()] = vectors
    return factors


CONTENDERS = [Contender("peer:mllib-als", als, DEFAULTS, space_up_to(256))]
