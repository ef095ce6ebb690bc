"""The embedding model without a loss to descend: the leading singular vectors of the normalised user-item matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.threads import one_thread
from recsys_spark.models.closed_form import ClosedFormModel
from recsys_spark.models.interactions import TrainingPairs, parts_of

Floats = NDArray[np.float32]


class SpectralModel(ClosedFormModel):
    """An `EmbeddingModel` whose scores are the ideal low-pass filter of GF-CF.

    With R the matrix of seen pairs, N = Du^-1/2 R Di^-1/2 by the counts of users and items, and V (items, d) an
    orthonormal basis of the leading right singular vectors of N, users are R Di^-1/2 V and items Di^1/2 V. A step is
    one of subspace iteration: V becomes a basis of N'N V. Shen et al., "How Powerful is Graph Convolution for
    Recommendation?", CIKM 2021; Halko et al., SIAM Review 53(2), 2011.
    """

    def compile(self, pairs: TrainingPairs) -> None:  # type: ignore[override]
        """Set the matrix; 8 bytes a pair, and during a step three times the vectors of both sides.

        Raises:
            RecsysError: as many dimensions as users or items, which would give the matrix back as it is.
        """
        shape, dims = (pairs.n_users, pairs.n_items), self.items.embedding_dim
        if dims >= min(shape):
            raise RecsysError(
                f"model.embedding_dim must be below the users and items that are trained, {shape[0]} and {shape[1]}, "
                f"for singular vectors, got {dims}"
            )
        self.compile_without_optimizer()
        self._user_scale, self._item_scale = (
            np.sqrt(np.maximum(counts, 1)).astype(np.float32)[:, None]
            for counts in (pairs.user_counts(), pairs.item_counts())
        )
        values = pairs.make_array(np.float32, len(pairs))
        for part in parts_of(len(pairs)):
            scales = self._user_scale[pairs.user_idx[part], 0] * self._item_scale[pairs.item_idx[part], 0]
            values[part] = 1.0 / scales
        self._normalised = sparse.csr_array((values, pairs.item_idx, pairs.indptr()), shape=shape)
        self._whole = sum(float(np.square(values[part], dtype=np.float64).sum()) for part in parts_of(len(pairs)))

    def train_step(self, batch: Any) -> dict[str, Any]:
        """Turn the basis once towards the leading vectors; the loss is the share of |N|^2 that it misses."""
        with one_thread():
            basis, _ = np.linalg.qr(self.items.vectors() / self._item_scale)
            basis, _ = np.linalg.qr(self._normalised.T @ (self._normalised @ basis))
            users = self._normalised @ basis
        self.items.assign(basis * self._item_scale)
        self.users.assign(users * self._user_scale)
        caught = float(np.einsum("ij,ij->", users, users, dtype=np.float64))
        return self.report_loss(1.0 - caught / self._whole)
