"""What a more diverse list costs: NDCG given up, beside diversity and coverage gained, by weight and by a cap.

MovieLens-100K, every rating as seen, a tenth of the pairs held out; `ials` with the default settings, its epochs chosen
on a tenth of the rest. Lists of 10 are picked from each user's best 50. Movies are compared by content embeddings of
titles, genres and years, as `conf/demo.toml` has them; genres, of which one movie has several, are counted as well.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import SparkSession

from benchmarks.content_quality import features
from benchmarks.datasets import CACHE, ml_100k_attributes, ml_100k_ratings
from benchmarks.harness import save
from benchmarks.jobs import spark_session
from benchmarks.quality import SEED, without_a_tenth
from recsys_spark.content_sections import ContentSettings
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.diversity import diversify
from recsys_spark.kernels.scoring import score_top_k
from recsys_spark.kernels.topk import TopK
from recsys_spark.metrics.diversity import intra_list_diversity
from recsys_spark.metrics.ranking import hits_matrix, ranking_metrics
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.content import fit_content
from recsys_spark.models.features import list_values
from recsys_spark.models.interactions import TrainingPairs
from recsys_spark.models.training import fit_embeddings

K, CANDIDATES = 10, 50
CONTENT = ContentSettings(text=("title",), categories=("genres",), numbers=("year",))


@dataclass(frozen=True)
class Rule:
    """A weight, and the most movies of a genre; None for any number."""

    weight: float
    max_per_category: int | None = None


RULES = (
    *map(Rule, (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)),
    Rule(0.0, 5),
    Rule(0.0, 3),
    Rule(0.3, 5),
)


def candidates_of(train: TrainingPairs) -> TopK:
    """The best movies of each user that are not in training."""
    part, validation = without_a_tenth(train)
    settings = ModelSettings()
    epochs = fit_embeddings(part, settings, SEED, validation=validation).best_epoch
    users, items = fit_embeddings(train, settings, SEED, epochs=epochs).embeddings.scoring_vectors()
    return score_top_k(users, items, IndexLists(train.indptr(), train.item_idx), CANDIDATES)


def measured(best: TopK, test: TrainingPairs, vectors: np.ndarray, genres: IndexLists) -> dict[str, float]:
    """Means over the users with something to find; coverage of all movies."""
    relevant = IndexLists(test.indptr(), test.item_idx)
    counts = np.diff(relevant.indptr)
    hits, lists = hits_matrix(best.indices, relevant)[counts > 0], best.indices[counts > 0]
    has = np.zeros((genres.n_rows, int(genres.indices.max()) + 1), bool)
    has[np.repeat(np.arange(genres.n_rows), np.diff(genres.indptr)), genres.indices] = True
    found = {
        f"ndcg@{K}": ranking_metrics(hits, counts[counts > 0], [K])[f"ndcg@{K}"].mean(),
        f"intra_list_diversity@{K}": np.nanmean(intra_list_diversity(lists, vectors, [K])[f"intra_list_diversity@{K}"]),
        f"item_coverage@{K}": len(np.unique(lists)) / test.n_items,
        f"genres@{K}": has[lists].any(axis=1).sum(axis=1).mean(),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def run(spark: SparkSession) -> None:
    pairs, attributes = ml_100k_ratings(), ml_100k_attributes()
    train, test = without_a_tenth(replace(pairs, rating=np.ones(len(pairs), np.float32)))
    vectors = fit_content(features(spark, attributes, CONTENT), CONTENT, SEED).vectors
    candidates, genres = candidates_of(train), list_values(item["genres"] for item in attributes)
    for rule in RULES:
        capped = None if rule.max_per_category is None else genres
        best = diversify(candidates, K, rule.weight, vectors, capped, rule.max_per_category or 1)
        line = {"benchmark": "diversity", "dataset": "ml-100k", "weight": rule.weight,
                "max_per_category": rule.max_per_category, "candidates": CANDIDATES,
                "metrics": measured(best, test, vectors, genres), "seed": SEED}  # fmt: skip
        print(json.dumps(save("diversity", line)), flush=True)


if __name__ == "__main__":
    if (CACHE / "ml-100k.item").exists():
        with spark_session() as session:
            run(session)
    else:
        print(f"skipped: {CACHE} has no ml-100k.item; `make run` gets it", file=sys.stderr)
