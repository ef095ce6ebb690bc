"""What a training runs on, in what precision, and what it tells TensorBoard."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_spark.model_sections import ModelSettings, VaeSettings
from recsys_spark.models.interactions import select_trained
from recsys_spark.models.training import fit_embeddings
from recsys_spark.models.vae import fit_vae
from recsys_spark.models.validation import RankingValidation
from tests.models.conftest import split_checkerboard

LOSSES: list[dict[str, Any]] = [
    {"loss": "mse"},
    {"loss": "bpr"},
    {"loss": "bce", "architecture": "neumf"},
    {"loss": "softmax", "architecture": "two_tower"},
    {"loss": "sampled_softmax", "negatives": 16, "in_batch_negatives": True},
    {"loss": "ials"},
    {"loss": "spectral"},
]


def fits() -> list[dict[str, Any]]:
    """Of each loss, and last `vae`, the loss after each epoch and how well it ranks, beside what is popular."""
    train, validation = split_checkerboard()
    rated = replace(train, rating=np.where(train.user_idx % 3 == 0, 0.9, 0.1).astype(np.float32))
    told = []
    for chosen in LOSSES:
        settings = ModelSettings.model_validate(
            {"embedding_dim": 8, "batch_size": 64, "epochs": 10, "patience": 10, "temperature": 0.5, **chosen}
        )
        fit = fit_embeddings(rated if settings.loss == "mse" else train, settings, 0, validation=validation)
        ndcg = max(log.validation_ndcg or 0.0 for log in fit.history)
        told.append({"losses": [log.loss for log in fit.history], "ndcg": ndcg, "popularity": fit.popularity_ndcg})
    return [*told, fit_of_vae()]


def fit_of_vae() -> dict[str, Any]:
    train, validation = split_checkerboard()
    part = select_trained(train, 1, 1)
    settings = VaeSettings(embedding_dim=6, hidden_units=16, epochs=20, learning_rate=0.01, batch_users=16, patience=20)
    fit = fit_vae(part, settings, 0, validation=validation)
    popularity = RankingValidation(part, validation, 100, 0).popularity_ndcg()
    ndcg = max(log.validation_ndcg or 0.0 for log in fit.history)
    return {"losses": [log.loss for log in fit.history], "ndcg": ndcg, "popularity": popularity}


def test_graphs_are_not_rewritten_to_other_orders_of_sums() -> None:
    """One fit of `vae` in 25 had other last bits with it: too rare for a test that compares two."""
    import tensorflow as tf

    from recsys_spark.models.backend import BACKEND

    assert BACKEND == "tensorflow"
    assert tf.config.optimizer.get_experimental_options()["arithmetic_optimization"] is False


def test_training_on_torch_learns_what_it_learns_on_tensorflow() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    program = (
        "import json, sys; from tests.models.test_backends import fits; told = fits(); "
        "print(json.dumps([told, fits() == told, 'tensorflow' in sys.modules]))"
    )
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    on_torch, is_repeated, has_tensorflow = json.loads(ran.stdout.splitlines()[-1])
    assert is_repeated
    assert not has_tensorflow
    for chosen, torch, tensorflow in zip([*LOSSES, {"loss": "vae"}], on_torch, fits(), strict=True):
        draws = chosen["loss"] in ("bpr", "bce", "sampled_softmax", "vae") or chosen.get("architecture") == "two_tower"
        # Random numbers are not the same ones on both.
        assert torch["losses"] == pytest.approx(tensorflow["losses"], rel=0.15 if draws else 1e-3, abs=1e-5)
        if chosen["loss"] != "mse":
            assert torch["ndcg"] > 1.5 * torch["popularity"]


def test_another_backend_is_refused_by_name() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    program = "import recsys_spark.models.backend"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "KERAS_BACKEND must be 'tensorflow' or 'torch', got 'numpy'" in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["sampled_softmax", "softmax"])
def test_mixed_precision_learns_as_much(loss: str) -> None:
    train, validation = split_checkerboard()
    chosen = {"loss": loss, "embedding_dim": 8, "epochs": 8, "patience": 8, "temperature": 0.5, "batch_size": 64}
    exact, mixed = (
        fit_embeddings(
            train,
            ModelSettings.model_validate({**chosen, "mixed_precision": is_mixed, "spectral_start": False}),
            0,
            validation=validation,
        )
        for is_mixed in (False, True)
    )
    assert mixed.embeddings.item_vectors.dtype == np.float32
    assert mixed.embeddings.item_vectors.tobytes() != exact.embeddings.item_vectors.tobytes()
    assert [log.loss for log in mixed.history] == pytest.approx([log.loss for log in exact.history], rel=0.02)


def test_tensorboard_shows_each_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    train, validation = split_checkerboard()
    settings = ModelSettings(loss="bpr", embedding_dim=8, batch_size=64, epochs=3)
    fit = fit_embeddings(train, settings, 0, validation=validation, log_folder=tmp_path)

    def scalars(part: str, name: str) -> list[float]:
        events = EventAccumulator(str(tmp_path / part), size_guidance={TENSORS: 0})
        events.Reload()
        return [make_ndarray(event.tensor_proto).item() for event in events.Tensors(name)]

    assert scalars("train", "epoch_loss") == pytest.approx([log.loss for log in fit.history])
    assert scalars("validation", "epoch_ndcg@10") == pytest.approx([log.validation_ndcg for log in fit.history])
