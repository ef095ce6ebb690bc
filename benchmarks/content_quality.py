"""How well users' items are found by what items are like, beside plain TF-IDF of the same words.

`citeulike-t`, 1 and 10 articles of each user known: recall at 50, 100 and 300 over all others (Wang et al.,
"Collaborative Deep Learning", KDD 2015). `ml-1m/cold-items`: a fifth of the movies has no rating in training; recall at
50 among them, by content alone and by vectors of the embedding model that follow from content, beside the shares that
genres have in what a user has rated. Features are made on Spark, as in a night.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy import sparse

from benchmarks.datasets import citeulike, citeulike_texts, is_there, ml_1m, ml_1m_attributes
from benchmarks.harness import chosen, save
from benchmarks.jobs import spark_session
from benchmarks.peers.plain import by_vectors
from benchmarks.quality import SEED, some_pairs, without_a_tenth
from benchmarks.ranking import Scores, lists_of, means_of, over_all
from recsys_spark.content_sections import ContentSettings
from recsys_spark.contents import content_of
from recsys_spark.kernels.csr import CsrRows
from recsys_spark.kernels.pooling import pool_weighted, unit_rows
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.cold_items import map_cold_items
from recsys_spark.models.content import ItemContent, fit_content
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings
from recsys_spark.transforms.content import choose_terms, count_terms, describe_items

MODEL = ModelSettings()
COLD_SHARE = 0.2


@dataclass(frozen=True)
class Task:
    """Pairs to learn from and to find, what is known of the items, and which of them are ranked, (items,)."""

    train: TrainingPairs
    test: TrainingPairs
    attributes: list[dict[str, str]]
    is_candidate: NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """A data set, settings of the content, and list lengths."""

    dataset: str
    task: Callable[[], Task]
    settings: dict[str, Any]
    ks: tuple[int, ...]


def of_citeulike(least: int) -> Callable[[], Task]:
    """All articles but the known ones."""

    def load() -> Task:
        train, test = (citeulike(part, least) for part in ("train", "test"))
        return Task(train, test, citeulike_texts(), np.ones(train.n_items, bool))

    return load


def cold_movies() -> Task:
    """A fifth of the movies, drawn at random, is to be found."""
    pairs = ml_1m()
    is_cold = np.random.default_rng(SEED).random(pairs.n_items) < COLD_SHARE
    is_test = is_cold[pairs.item_idx]
    return Task(some_pairs(pairs, ~is_test), some_pairs(pairs, is_test), ml_1m_attributes(), is_cold)


MOVIES = {"text": ["title", "plot"], "categories": ["genres", "director", "actors"], "numbers": ["year"]}
SMALL = [Run("citeulike-t/P1", of_citeulike(1), {"text": ["text"], "embedding_dim": 256}, (50, 100, 300))]
FULL = [
    *SMALL,
    Run("citeulike-t/P10", of_citeulike(10), {"text": ["text"], "embedding_dim": 256}, (50, 100, 300)),
    Run("ml-1m/cold-items", cold_movies, MOVIES, (50,)),
]


def features(spark: SparkSession, attributes: list[dict[str, str]], settings: ContentSettings) -> ItemContent:
    """As the step `embed_content` makes them."""
    items = spark.createDataFrame(list(enumerate(attributes)), "item_idx int, attributes map<string,string>")
    counts = count_terms(items, settings).cache()
    terms = choose_terms(counts, len(attributes), settings).cache()
    return content_of(describe_items(items, counts, terms, settings).toArrow(), terms.count(), settings)


def rows_of(pairs: TrainingPairs) -> CsrRows:
    """What each user has."""
    return CsrRows(pairs.indptr(), pairs.item_idx, pairs.rating, pairs.n_items)


def by_tastes(vectors: NDArray[np.float32], train: TrainingPairs) -> Scores:
    """Cosines of tastes and items, as `recommend.model = "content"` has them."""
    tastes = unit_rows(pool_weighted(rows_of(train), train.rating, vectors))
    return lambda users: tastes[users] @ vectors.T


def by_terms(content: ItemContent, train: TrainingPairs) -> Scores:
    """The same of the features themselves."""
    terms, rows = content.terms, rows_of(train)
    items = sparse.csr_array((terms.values, terms.indices, terms.indptr), (terms.n_rows, terms.n_columns))
    tastes = sparse.csr_array((rows.values, rows.indices, rows.indptr), (rows.n_rows, rows.n_columns)) @ items
    return lambda users: (tastes[users] @ items.T).toarray()


def by_genres(attributes: list[dict[str, str]], train: TrainingPairs) -> Scores:
    """The shares of genres in what a user has, over the genres of an item."""
    of_items = [set(filter(None, item.get("genres", "").split("|"))) for item in attributes]
    names = sorted(set().union(*of_items))
    has = np.array([[name in genres for name in names] for genres in of_items], np.float32)
    shares = has / np.maximum(has.sum(axis=1, keepdims=True), 1)
    tastes = pool_weighted(rows_of(train), train.rating, shares)
    return lambda users: tastes[users] @ shares.T


def recalls(scores: Scores, task: Task, ks: tuple[int, ...]) -> dict[str, float]:
    """Over the users with something to find, among the candidates."""

    def of_candidates(users: slice) -> NDArray[np.float32]:
        return np.where(task.is_candidate, scores(users), -np.inf).astype(np.float32)

    measure = over_all(lambda: task.test, [f"recall@{k}" for k in ks])
    return means_of(measure(lists_of(of_candidates, task.train.n_users), task.train))


def run(spark: SparkSession, case: Run) -> None:
    task, settings = case.task(), ContentSettings(**case.settings)
    content = features(spark, task.attributes, settings)
    started = time.perf_counter()
    fit = fit_content(content, settings, SEED)
    seconds = round(time.perf_counter() - started, 1)
    keep(case, "content", recalls(by_tastes(fit.vectors, task.train), task, case.ks), seconds, epochs=fit.best_epoch)
    started = time.perf_counter()
    by_words = by_terms(content, task.train)
    seconds = round(time.perf_counter() - started, 3)  # without the weights of terms, which `content` has, too
    keep(case, "peer:tfidf", recalls(by_words, task, case.ks), seconds)
    if case.dataset == "ml-1m/cold-items":
        started = time.perf_counter()
        part, validation = without_a_tenth(task.train)
        epochs = fit_embeddings(part, MODEL, SEED, validation=validation).best_epoch
        embeddings = fit_embeddings(task.train, MODEL, SEED, epochs=epochs).embeddings
        seconds = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        mapped = map_cold_items(embeddings, content, settings.max_trained_items, SEED)
        mapping = {"mapping_s": round(time.perf_counter() - started, 1)}
        keep(
            case,
            "ials, cold items by content",
            recalls(by_vectors(*mapped.scoring_vectors()), task, case.ks),
            seconds,
            **mapping,
        )
        keep(case, "peer:genres", recalls(by_genres(task.attributes, task.train), task, case.ks), 0.0)


def keep(case: Run, model: str, metrics: dict[str, float], train_s: float, **more: Any) -> None:
    line = {"benchmark": "quality", "dataset": case.dataset, "model": model, "metrics": metrics, "train_s": train_s}
    print(json.dumps(save("quality", line | more | {"seed": SEED, "settings": case.settings})), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["small", "full"], default="small", help="full: all data sets")
    parser.add_argument("--dataset", default="", help="run the one of this name, or else those whose name contains it")
    options = parser.parse_args()
    of_size = {each.dataset: each for each in (SMALL if options.size == "small" else FULL)}
    wanted = chosen(parser, "--dataset", options.dataset, of_size)
    with spark_session() as session:
        for each in wanted:
            if is_there(each.dataset.split("/")[0]):
                run(session, each)
