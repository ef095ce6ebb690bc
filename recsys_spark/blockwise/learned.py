"""A learned similarity on the executors: the embeddings of all users by their behavior, mapped by every worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from recsys_spark.blockwise.files import MappedArray, distribute_array
from recsys_spark.blockwise.user_rows import RowSource
from recsys_spark.kernels.csr import IndexLists
from recsys_spark.kernels.similarity import embed_behavior, learned_similarities


@dataclass(frozen=True)
class LearnedSimilarity:
    """How much neighbors count beyond their similarity: by the cosine of `embeddings`, (n_users, d), of length one."""

    embeddings: MappedArray
    temperature: float

    def of(
        self, users: NDArray[np.int32], neighbors: IndexLists, similarities: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The learned similarities of some consecutive users with their neighbors, from the given ones."""
        embeddings = self.embeddings.load()
        own = embeddings[users[0] : users[0] + len(users)] if len(users) else embeddings[:0]
        return learned_similarities(own, neighbors, similarities, embeddings, self.temperature)


def distribute_similarity(
    spark: SparkSession, source: RowSource, item_vectors: NDArray[np.float32], temperature: float, scratch: Path
) -> LearnedSimilarity:
    """Embed all users by the vectors, (n_items, d), of their items, and hand the embeddings to the executors.

    Driver memory: one block and its embeddings; disk on the driver and on each host: 4 bytes x d a user.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    path, shape = scratch / "user-embeddings.npy", (source.n_users, item_vectors.shape[1])
    embeddings = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for first, rows in source.blocks():
        embeddings[first : first + rows.n_rows] = embed_behavior(rows, item_vectors)
    embeddings.flush()
    return LearnedSimilarity(distribute_array(spark, path), temperature)
