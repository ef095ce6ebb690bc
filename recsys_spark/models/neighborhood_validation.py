"""How well lists by a learned similarity rank what the users of the validation slice took next."""

from __future__ import annotations

from recsys_spark.kernels.layout import Floats
from recsys_spark.kernels.neighbor_scoring import NeighborMode, score_from_neighbors
from recsys_spark.kernels.similarity import embed_behavior, learned_similarities
from recsys_spark.models.reconstruction import NearestUsers
from recsys_spark.models.validation import K, RankingValidation


class NeighborhoodReferee:
    """NDCG@10 of lists over all items, made as the night makes them, for the users of a validation.

    The neighbors are found once, among the users of `nearest`: 8 x k bytes each of them.
    """

    def __init__(
        self,
        validation: RankingValidation,
        nearest: NearestUsers,
        temperature: float,
        mode: NeighborMode = "sum",
        shrinkage: float = 0.0,
    ) -> None:
        self._validation, self._rows, self._temperature = validation, nearest.rows, temperature
        self._neighbors, self._similarities = nearest.of(nearest.rows).lists(validation.users)
        self._mode, self._shrinkage = mode, shrinkage

    def ndcg(self, item_vectors: Floats) -> float:
        """The mean over the users of the validation."""
        embeddings, users = embed_behavior(self._rows, item_vectors), self._validation.users
        learned = learned_similarities(
            embeddings[users], self._neighbors, self._similarities, embeddings, self._temperature
        )
        best = score_from_neighbors(
            self._rows, self._neighbors, learned, self._validation.seen, K, self._mode, self._shrinkage
        )
        return self._validation.ndcg_of(best.indices)
