"""Embeddings on disk: arrays for everybody, Keras weights for Keras, a manifest that both must match.

Nothing here is code: `.npy` without pickles, weights without the architecture, JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_spark.errors import RecsysError
from recsys_spark.kernels.hidden import HiddenLayer
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.embeddings import Embeddings

MANIFEST = "manifest.json"
WEIGHTS = "weights.weights.h5"
FORMAT = 3
_ARRAYS = tuple(field.name for field in fields(Embeddings) if field.name not in ("offset", "hidden"))
_HIDDEN = tuple(f"hidden_{name}" for name in HiddenLayer._fields)


def save_embeddings(folder: Path, embeddings: Embeddings, settings: ModelSettings, seed: int, epochs: int) -> None:
    """Write `<array>.npy` for each array of `Embeddings`, the Keras weights, and the manifest, last, in `folder`.

    A folder without a manifest is not a model, so a write that stops half way leaves none.
    """
    from recsys_spark.models.backend import BACKEND  # whoever only reads arrays need not wait for it

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    arrays = {name: getattr(embeddings, name) for name in _ARRAYS}
    if embeddings.hidden is not None:
        arrays |= dict(zip(_HIDDEN, embeddings.hidden, strict=True))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    _keras_model(embeddings).save_weights(folder / WEIGHTS, overwrite=True)
    manifest = {
        "format": FORMAT,
        **_kind(settings),
        "n_users": embeddings.n_users,
        "n_items": embeddings.n_items,
        "offset": embeddings.offset,
        "seed": seed,
        "epochs": epochs,
        "settings": settings.model_dump(mode="json"),
        "versions": {library: version(library) for library in ("keras", BACKEND, "numpy")},
        "files": {name: _describe(folder / name) for name in sorted([*(f"{name}.npy" for name in arrays), WEIGHTS])},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a saved model.

    Raises:
        RecsysError: there is none, or it is of a format this version does not know.
    """
    path, manifest = folder / MANIFEST, _manifest_of_any_format(folder)
    if manifest.get("format") != FORMAT:
        raise RecsysError(f"model manifest {path} has format {manifest.get('format')!r}, this version reads {FORMAT}")
    missing = {"loss", "embedding_dim", "offset", "files"} - manifest.keys()
    if missing:
        raise RecsysError(f"model manifest {path} lacks {sorted(missing)}")
    return manifest


def _manifest_of_any_format(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecsysError(f"model manifest {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecsysError(f"model manifest {path} is not JSON: {error}") from error
    return dict(manifest) if isinstance(manifest, dict) else {}


def load_embeddings(folder: Path) -> Embeddings:
    """Read a saved model without Keras; arrays are memory-mapped and read-only.

    Raises:
        RecsysError: naming the file that is missing, changed, or not of the shape the manifest gives.
    """
    manifest = read_manifest(folder)
    names = [*_ARRAYS, *(name for name in _HIDDEN if f"{name}.npy" in manifest["files"])]
    for name in (*(f"{name}.npy" for name in names), WEIGHTS):
        _require_unchanged(folder / name, manifest["files"].get(name))
    arrays = {name: _load_array(folder / f"{name}.npy", manifest["files"][f"{name}.npy"]) for name in names}
    hidden = [arrays.pop(name) for name in _HIDDEN if name in arrays]
    try:
        return Embeddings(**arrays, offset=float(manifest["offset"]), hidden=HiddenLayer(*hidden) if hidden else None)
    except ValueError as error:
        raise RecsysError(f"the arrays in {folder} do not belong together: {error}") from error


def load_warm_start(folder: Path, settings: ModelSettings) -> Embeddings | None:
    """A saved model as the start of the next fit, its vectors and biases read from the Keras weights.

    None when it was trained with another loss, architecture, similarity or size, or stored by a version with another
    format, which cannot be continued, and for `neumf`: how far its hidden layer has been trained is not kept.

    Raises:
        RecsysError: as `load_embeddings`, or the weights do not fit the architecture.
    """
    if settings.architecture == "neumf" or _manifest_of_any_format(folder).get("format") != FORMAT:
        return None
    manifest = read_manifest(folder)
    if any(manifest.get(name) != value for name, value in _kind(settings).items()):
        return None
    embeddings = load_embeddings(folder)
    model = _keras_model(embeddings, is_filled=False)
    try:
        model.load_weights(folder / WEIGHTS)
    except (ValueError, OSError, KeyError) as error:
        raise RecsysError(f"Keras weights {folder / WEIGHTS} do not fit the model: {error}") from error
    users, items = model.users.read(), model.items.read()
    return replace(
        embeddings,
        user_vectors=users[0],
        user_biases=users[1],
        item_vectors=items[0],
        item_biases=items[1],
        offset=float(model.offset.numpy()),
    )


def _kind(settings: ModelSettings) -> dict[str, Any]:
    """What two fits must have in common for one to continue the other."""
    return {
        "loss": settings.loss,
        "architecture": settings.architecture,
        "is_cosine": settings.is_cosine,
        "embedding_dim": settings.embedding_dim,
    }


def _keras_model(embeddings: Embeddings, is_filled: bool = True) -> Any:
    # Imported here, so that whoever only reads arrays does not load TensorFlow.
    from recsys_spark.models.embedding import EmbeddingModel
    from recsys_spark.models.neumf import NeumfModel

    sizes = embeddings.n_users, embeddings.n_items, embeddings.embedding_dim
    hidden = embeddings.hidden
    model = EmbeddingModel(*sizes) if hidden is None else NeumfModel(*sizes, len(hidden.output))
    if is_filled:
        if hidden is not None:
            model.hidden = hidden
        model.users.assign(embeddings.user_vectors, embeddings.user_biases)
        model.items.assign(embeddings.item_vectors, embeddings.item_biases)
        model.offset.assign(embeddings.offset)
    return model


def _describe(path: Path) -> dict[str, Any]:
    description: dict[str, Any] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        description |= {"dtype": array.dtype.name, "shape": list(array.shape)}
    return description


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_unchanged(path: Path, description: Any) -> None:
    if not isinstance(description, dict):
        raise RecsysError(f"model file {path} is not in the manifest")
    if not path.is_file():
        raise RecsysError(f"model file {path} is missing")
    if path.stat().st_size != description.get("bytes"):
        raise RecsysError(
            f"model file {path} has {path.stat().st_size} bytes, its manifest says {description.get('bytes')}"
        )
    if _sha256(path) != description.get("sha256"):
        raise RecsysError(f"model file {path} has changed since it was written: its SHA-256 is not the manifest's")


def _load_array(path: Path, description: dict[str, Any]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False, mmap_mode="r")
    except ValueError as error:
        raise RecsysError(f"model file {path} is no plain array: {error}") from error
    found, wanted = (array.dtype.name, list(array.shape)), (description.get("dtype"), description.get("shape"))
    if found != wanted:
        raise RecsysError(f"model file {path} holds {found[0]} {found[1]}, its manifest says {wanted[0]} {wanted[1]}")
    return array
