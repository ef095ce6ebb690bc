"""The models of implicit: whole-data ALS, BPR, and nearest items by cosine and by BM25.

On all processors, which are its defaults; the library asks for one thread of BLAS within ALS. `alpha` of its ALS is the
weight of a seen pair where an unseen one has 1; the penalty is the same for all rows. ALS takes its default of 15
passes, after which little moves.
"""

from __future__ import annotations

import time
import warnings

from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, ItemItemRecommender
from implicit.utils import ParameterWarning
from optuna.distributions import FloatDistribution, IntDistribution
from threadpoolctl import threadpool_limits

from benchmarks.peers.contender import Contender, Fitted, Settings
from benchmarks.peers.plain import as_floats, as_matrix, by_vectors
from benchmarks.peers.whole_data import DEFAULTS, space_up_to, terms_of
from benchmarks.quality import SEED
from recsys_spark.models.interactions import TrainingPairs


def als(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    terms = terms_of(pairs, settings)
    model = AlternatingLeastSquares(
        settings["embedding_dim"], regularization=terms.of_row, alpha=1.0 + terms.extra, random_state=SEED
    )
    with threadpool_limits(1, "blas"):
        return of_factors(model, pairs)


def bpr(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    return of_factors(BayesianPersonalizedRanking(random_state=SEED, **settings), pairs)


def of_factors(model: AlternatingLeastSquares | BayesianPersonalizedRanking, pairs: TrainingPairs) -> Fitted:
    """Products of the factors, in which those of BPR have the items' biases."""
    matrix, started = as_matrix(pairs), time.perf_counter()
    model.fit(matrix, show_progress=False)
    seconds = time.perf_counter() - started
    return Fitted(by_vectors(model.user_factors, model.item_factors), seconds)


def cosine(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    return of_similarities(CosineRecommender(**settings), pairs)


def bm25(pairs: TrainingPairs, settings: Settings, held_out: TrainingPairs | None) -> Fitted:
    return of_similarities(BM25Recommender(**settings), pairs)


def of_similarities(model: ItemItemRecommender, pairs: TrainingPairs) -> Fitted:
    """Sums of the similarities to a user's items, as the library's own `recommend` has them."""
    matrix, started = as_matrix(pairs), time.perf_counter()
    with warnings.catch_warnings(action="ignore", category=ParameterWarning):  # of a matrix it has made itself
        model.fit(matrix, show_progress=False)
    seconds = time.perf_counter() - started
    return Fitted(lambda users: as_floats((matrix[users] @ model.similarity).toarray()), seconds)


NEAREST = {"K": IntDistribution(3, 1000, log=True)}
CONTENDERS = [
    Contender("peer:implicit-als", als, DEFAULTS, space_up_to(512)),
    Contender(
        "peer:implicit-bpr",
        bpr,
        {"factors": 100, "learning_rate": 0.01, "regularization": 0.01, "iterations": 100},
        {
            "factors": IntDistribution(8, 256, log=True),
            "learning_rate": FloatDistribution(0.001, 0.3, log=True),
            "regularization": FloatDistribution(0.0001, 0.3, log=True),
            "iterations": IntDistribution(50, 300, log=True),
        },
    ),
    Contender("peer:implicit-cosine", cosine, {"K": 20}, NEAREST),
    Contender(
        "peer:implicit-bm25",
        bm25,
        {"K": 20, "K1": 1.2, "B": 0.75},
        NEAREST | {"K1": FloatDistribution(0.1, 200.0, log=True), "B": FloatDistribution(0.0, 1.0)},
    ),
]
