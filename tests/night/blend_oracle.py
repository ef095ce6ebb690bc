"""Scores of a blend by the definitions, as dense matrices: what nights of a blend are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.encoder import Encoder
from tests.kernels.test_encoder import by_layers
from tests.night.catalogue import Workspace
from tests.night.oracles import SPLITS

Scores = NDArray[np.float64]


class Oracle:
    """Scores of every user and item by the definitions, from what the run has stored, as dense matrices."""

    def __init__(self, workspace: Workspace, fit: str) -> None:
        self.workspace, self.fit = workspace, fit
        self.users, self.items = workspace.positions("user"), workspace.positions("item")
        self.shape = len(self.users), len(self.items)
        splits = SPLITS if fit == "model" else ("train",)
        self.rows = [row for row in workspace.rows("interactions") if row["split"] in splits]
        self.ratings, self.session = np.zeros(self.shape), np.zeros(self.shape)
        by_user: dict[int, list[dict[str, Any]]] = {}
        for row in self.rows:
            self.ratings[row["user_idx"], row["item_idx"]] = row["rating"]
            by_user.setdefault(row["user_idx"], []).append(row)
        for user, had in by_user.items():
            newest = sorted(had, key=lambda row: row["last_at"], reverse=True)
            for rank, row in enumerate(newest[:3]):
                self.session[user, row["item_idx"]] = 2 ** (-rank / 1.5)
        self.has = np.zeros(self.shape)
        for row in self.rows:
            self.has[row["user_idx"], row["item_idx"]] = 1
        self.arrays = workspace.arrays(fit)

    def embedded(self) -> Scores:
        table = "user_embeddings" if self.fit == "model" else "selection_embeddings"
        blocks = sorted(self.workspace.rows(table), key=lambda row: row["block_id"])
        dims = self.arrays["item_vectors"].shape[1]
        vectors = np.concatenate([np.frombuffer(row["vectors"], np.float32).reshape(-1, dims + 3) for row in blocks])
        return vectors[:, :dims].astype(float) @ self.arrays["item_vectors"].T + self.arrays["item_biases"]

    def embedded_session(self) -> Scores:
        vectors = self.arrays["item_vectors"].astype(float)
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return self.session @ units @ vectors.T

    def content(self, weights: Scores) -> Scores:
        vectors = self.workspace.arrays("content")["content_embeddings"].astype(float)
        return weights @ vectors @ vectors.T

    def by_items(self, model: str, weights: Scores) -> Scores:
        arrays = self.workspace.arrays(f"{self.fit}-{model}")
        scores = np.zeros(self.shape)
        scores[:, arrays["positions"]] = weights[:, arrays["positions"]] @ arrays["weights"].astype(float)
        return scores

    def encoded(self) -> tuple[Scores, NDArray[np.bool_]]:
        arrays = self.workspace.arrays(f"{self.fit}-vae")
        users = by_layers(self.has > 0, Encoder(*(arrays[name] for name in Encoder._fields)))
        return users @ arrays["item_vectors"].T.astype(float), arrays["is_known"]

    def neighbors(self) -> Scores:
        """From the table for the lists; without the hold-out, by distances computed here."""
        weights = np.zeros((self.shape[0], self.shape[0]))
        if self.fit == "model":
            for row in self.workspace.rows("user_neighbors"):
                weights[row["user_idx"], row["neighbor_idx"]] = row["similarity"]
        else:
            distances = np.linalg.norm(self.ratings[:, None] - self.ratings[None], axis=2)
            np.fill_diagonal(distances, np.inf)
            for user, row in enumerate(distances):
                for other in np.lexsort((np.arange(len(row)), row))[:6]:
                    weights[user, other] = 1 / (1 + row[other])
        return weights @ self.ratings

    def raw(self) -> list[tuple[Scores, NDArray[np.bool_]]]:
        """Of each component, and the items it knows."""
        popular = self.arrays["popularity"] > 0
        scored = self.arrays["is_trained_item"] | self.arrays["is_mapped_item"]
        described = self.workspace.arrays("content")["content_embeddings"].any(axis=1)
        everybody = np.ones((self.shape[0], 1))
        return [
            (self.embedded(), scored),
            (everybody * self.arrays["popularity"].astype(float), popular),
            (self.neighbors(), popular),
            (self.content(self.ratings), described),
            (self.by_items("ease", self.has), popular),
            (self.by_items("graph_filter", self.has), popular),
            self.encoded(),
            (self.embedded_session(), scored),
            (self.content(self.session), described),
            (self.by_items("ease", self.session), popular),
        ]

    def scores(self) -> tuple[list[Scores], NDArray[np.bool_]]:
        """Standardised, of each component; and the items that any knows."""
        standardised, is_any_known = [], np.zeros(self.shape[1], bool)
        for scores, is_known in self.raw():
            is_any_known |= is_known
            known = scores[:, is_known] - scores[:, is_known].mean(axis=1, keepdims=True)
            deviations = np.sqrt(np.square(known).mean(axis=1, keepdims=True))
            placed = np.zeros(self.shape)
            placed[:, is_known] = np.where(deviations > 1e-9, known / np.maximum(deviations, 1e-9), 0.0)
            standardised.append(placed)
        return standardised, is_any_known

    def weights(self) -> Scores:
        facts = self.workspace.facts("blend")["details"]
        return np.array(facts["weights"])[np.searchsorted(facts["segments"], self.has.sum(axis=1), side="right")]

    def blended(self) -> Scores:
        weights, (scores, is_known) = self.weights(), self.scores()
        total = sum(weights[:, [number]] * each for number, each in enumerate(scores))
        return np.where(is_known, total, -np.inf)
