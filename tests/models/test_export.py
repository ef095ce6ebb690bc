import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from recsys_spark.errors import RecsysError
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.embeddings import Embeddings
from recsys_spark.models.export import load_embeddings, load_warm_start, read_manifest, save_embeddings
from recsys_spark.models.neumf import random_layer
from tests.models.test_embeddings import random_embeddings, with_untrained

SETTINGS = ModelSettings(loss="bce", embedding_dim=3)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    embeddings = with_untrained(random_embeddings(6, 5, 3), users=[2], items=[4])
    save_embeddings(tmp_path / "model", embeddings, SETTINGS, seed=11, epochs=4)
    return tmp_path / "model"


def assert_equal(found: Embeddings, wanted: Embeddings) -> None:
    for field in fields(Embeddings):
        assert np.array_equal(getattr(found, field.name), getattr(wanted, field.name)), field.name


def test_what_is_saved_is_loaded_again(saved: Path) -> None:
    wanted = with_untrained(random_embeddings(6, 5, 3), users=[2], items=[4])
    assert_equal(load_embeddings(saved), wanted)
    warm_start = load_warm_start(saved, SETTINGS)
    assert warm_start is not None
    assert_equal(warm_start, wanted)


def test_the_manifest_tells_what_the_model_is(saved: Path) -> None:
    manifest = read_manifest(saved)
    told = {key: manifest[key] for key in ("loss", "embedding_dim", "n_users", "n_items", "offset", "seed", "epochs")}
    assert told == {
        "loss": "bce", "embedding_dim": 3, "n_users": 6, "n_items": 5, "offset": 0.75, "seed": 11, "epochs": 4,
    }  # fmt: skip
    assert set(manifest["files"]) == {path.name for path in saved.iterdir()} - {"manifest.json"}
    assert manifest["files"]["item_vectors.npy"]["shape"] == [5, 3]
    assert set(manifest["versions"]) == {"keras", "tensorflow", "numpy"}


@pytest.mark.parametrize("other", [{"loss": "bpr"}, {"embedding_dim": 4}, {"architecture": "neumf"}])
def test_a_model_of_another_kind_is_no_start(saved: Path, other: dict[str, object]) -> None:
    assert load_warm_start(saved, SETTINGS.model_copy(update=other)) is None


def test_cosines_are_no_start_for_dot_products(tmp_path: Path) -> None:
    cosine = ModelSettings(loss="softmax", embedding_dim=3)
    save_embeddings(tmp_path, random_embeddings(6, 5, 3), cosine, seed=1, epochs=1)
    assert load_warm_start(tmp_path, cosine) is not None
    assert load_warm_start(tmp_path, cosine.model_copy(update={"similarity": "dot"})) is None


def test_a_hidden_layer_is_saved_and_is_no_start(tmp_path: Path) -> None:
    settings = ModelSettings(loss="bce", embedding_dim=3, architecture="neumf", hidden_units=2)
    wanted = replace(random_embeddings(6, 5, 3), hidden=random_layer(2, 3, seed=0))
    save_embeddings(tmp_path, wanted, settings, seed=1, epochs=1)
    found = load_embeddings(tmp_path).hidden
    assert found is not None
    for array, saved in zip(found, wanted.hidden or (), strict=True):
        assert np.array_equal(array, saved)
    assert load_warm_start(tmp_path, settings) is None


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path, edit: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda folder: flip_last_byte(folder / "item_vectors.npy"), "item_vectors.npy has changed"),
        (lambda folder: flip_last_byte(folder / "weights.weights.h5"), "weights.weights.h5 has changed"),
        (lambda folder: (folder / "popularity.npy").unlink(), "popularity.npy is missing"),
        (lambda folder: (folder / "item_biases.npy").write_bytes(b""), "item_biases.npy has 0 bytes"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is not JSON"),
        (lambda folder: edit_manifest(folder, lambda m: m.update(format=99)), "has format 99"),
        (lambda folder: edit_manifest(folder, lambda m: m.pop("files")), r"lacks \['files'\]"),
        (lambda folder: edit_manifest(folder, lambda m: m["files"].pop("popularity.npy")), "not in the manifest"),
        (
            lambda folder: edit_manifest(folder, lambda m: m["files"]["item_vectors.npy"].update(shape=[5, 4])),
            r"item_vectors.npy holds float32 \[5, 3\], its manifest says float32 \[5, 4\]",
        ),
    ],
)
def test_a_corrupted_model_is_refused(saved: Path, corrupt: Callable[[Path], object], message: str) -> None:
    corrupt(saved)
    with pytest.raises(RecsysError, match=message):
        load_embeddings(saved)


def test_a_model_of_an_earlier_format_is_no_start_but_no_failure_either(saved: Path) -> None:
    edit_manifest(saved, lambda m: m.update(format=1))
    assert load_warm_start(saved, SETTINGS) is None


def test_a_pickle_is_never_loaded(saved: Path) -> None:
    path = saved / "popularity.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    import hashlib

    described = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    edit_manifest(saved, lambda m: m["files"]["popularity.npy"].update(described))
    with pytest.raises(RecsysError, match=r"popularity.npy is no plain array"):
        load_embeddings(saved)


def test_weights_of_another_architecture_are_refused(saved: Path, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "other", random_embeddings(7, 5, 3), SETTINGS, seed=0, epochs=1)
    name = "weights.weights.h5"
    (saved / name).write_bytes((tmp_path / "other" / name).read_bytes())
    described = read_manifest(tmp_path / "other")["files"][name]
    edit_manifest(saved, lambda m: m["files"].update({name: described}))
    with pytest.raises(RecsysError, match=r"weights.weights.h5 do not fit"):
        load_warm_start(saved, SETTINGS)
