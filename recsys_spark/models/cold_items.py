"""Vectors of items that were not trained, from what they are like: a mapping learned on those that were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys_spark.kernels.layout import Floats
from recsys_spark.models.backend import keras
from recsys_spark.models.content import ContentBatches, ItemContent, apply_to_items
from recsys_spark.models.embeddings import Embeddings

LEAST_TRAINED = 10  # items to learn from; of fewer a mapping would tell nothing

_HELD_OUT = 0.1
_SMALLEST = 1e-6  # of the variances of scores, beside the largest: directions that no score tells apart
_BATCH, _PENALTY, _LEARNING_RATE, _EPOCHS, _PATIENCE = 64, 1.0, 0.01, 60, 5


def map_cold_items(embeddings: Embeddings, content: ItemContent, most_items: int, seed: int) -> Embeddings:
    """The embeddings with a vector and bias for items that are not trained and of which something is known.

    A layer maps the features of an item to its vector, by the squared errors of the users' scores, which are those of
    the vectors in the metric U^T U of the users, and an L2 penalty. It learns from up to `most_items` trained ones with
    all of their interactions dropped, which is what DropoutNet sees of cold items (Volkovs et al., NeurIPS 2017). A
    hidden layer did not find more, nor did dropout of features instead of the penalty (docs/decisions/0022). Trained
    items keep their vectors. With fewer than 10 trained items that are described, without users, and for `neumf`,
    nothing changes. Bytes: 16 x (terms + m) x (d + 1), and 12 x (terms + m) for each of 64 items.
    """
    described = content.is_described
    known, cold = (
        np.flatnonzero(described & flags) for flags in (embeddings.is_trained_item, ~embeddings.is_trained_item)
    )
    users = embeddings.user_vectors[embeddings.is_trained_user]
    if embeddings.hidden is not None or len(known) < LEAST_TRAINED or len(cold) == 0 or not users.any():
        return embeddings
    known = np.sort(np.random.default_rng([seed, 6]).permutation(known)[:most_items])
    root = _root_of_gram(users)
    wanted = np.column_stack([embeddings.item_vectors[known] @ root, embeddings.item_biases[known]]).astype(np.float32)
    scale = np.float32(max(float(wanted.std()), 1e-12))
    found = apply_to_items(_fit(content, known, wanted / scale, seed), content, cold) * scale
    vectors, biases, is_mapped = embeddings.item_vectors.copy(), embeddings.item_biases.copy(), np.zeros_like(described)
    vectors[cold] = found[:, :-1] @ np.linalg.pinv(root, rcond=_SMALLEST, hermitian=True)
    biases[cold] = found[:, -1]
    is_mapped[cold] = True
    return replace(embeddings, item_vectors=vectors, item_biases=biases, is_mapped_item=is_mapped)


def _root_of_gram(users: Floats) -> Floats:
    """The symmetric root of U^T U / m, (d, d)."""
    gram = users.T.astype(np.float64) @ users / len(users)
    values, axes = np.linalg.eigh(gram)
    root: Floats = ((axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T).astype(np.float32)
    return root


def _fit(content: ItemContent, known: NDArray[np.intp], wanted: Floats, seed: int) -> keras.Model:
    """Training stops when items held out gain nothing, and keeps the best."""
    order = np.random.default_rng([seed, 8]).permutation(len(known))
    held_out, train = np.split(order, [int(np.ceil(_HELD_OUT * len(order)))])
    # As large as beside the sum of the squared errors, whose mean is what Keras adds it to.
    penalty = keras.regularizers.L2(_PENALTY / (len(known) * wanted.shape[1]))
    start = keras.initializers.GlorotUniform(seed)
    model = keras.Sequential(
        [keras.layers.Dense(wanted.shape[1], kernel_initializer=start, kernel_regularizer=penalty)]
    )
    model.compile(keras.optimizers.Adam(_LEARNING_RATE), loss="mse", weighted_metrics=["mse"])
    stopping = keras.callbacks.EarlyStopping("val_mse", patience=_PATIENCE, mode="min", restore_best_weights=True)
    batches, validation = (
        ContentBatches(content, known[part], _BATCH, shuffled, wanted[part])
        for part, shuffled in ((train, seed), (held_out, None))
    )
    # Without shuffle, because Keras would shuffle the batches once more, by the global generator.
    model.fit(batches, epochs=_EPOCHS, validation_data=validation, verbose=0, callbacks=[stopping], shuffle=False)
    return model
