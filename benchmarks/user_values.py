"""Values of a metric of each user, kept beside the saved lines so that models can be compared user by user.

`var/quality/<dataset>/<model>.npy`, float32 (users,), of the data set's first metric. The users are those of the
training part (of `late` splits: of both parts) by ascending number of the id that the data set's files give them; nan
where a user has nothing to find. Two models of a data set are thus compared element by element.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "var" / "quality"


def path_of(dataset: str, model: str) -> Path:
    return FOLDER / dataset / f"{model}.npy"


def keep_values(dataset: str, model: str, values: NDArray[np.floating]) -> None:
    """In place of earlier ones."""
    path = path_of(dataset, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values.astype(np.float32))


def kept_values(dataset: str, model: str) -> NDArray[np.float32] | None:
    """Those of the last run, or none."""
    path = path_of(dataset, model)
    return np.load(path) if path.exists() else None
