"""Values of the metrics of each user, kept beside the saved lines so that models can be compared user by user.

`var/quality/<dataset>/<model>.npz`, one float32 array (users,) a metric, by its name. The users are those of the
training part (of `late` splits: of both parts) by ascending number of the id that the data set's files give them; nan
where a user has nothing to find. Two models of a data set are thus compared element by element.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.ranking import Values

FOLDER = Path(__file__).parent.parent / "var" / "quality"


def keep_values(dataset: str, model: str, values: Values) -> None:
    """In place of earlier ones."""
    path = path_of(dataset, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: each.astype(np.float32) for name, each in values.items()})


def kept_values(dataset: str, model: str) -> Values | None:
    """Those of the last run, or none."""
    path = path_of(dataset, model)
    if not path.exists():
        return None
    with np.load(path) as arrays:
        return dict(arrays)


def kept_models(dataset: str, prefix: str) -> dict[str, Values]:
    """Those of the models whose name begins so, by name."""
    found = {path.stem: kept_values(dataset, path.stem) for path in sorted((FOLDER / dataset).glob(f"{prefix}*.npz"))}
    return {name: values for name, values in found.items() if values is not None}


def path_of(dataset: str, model: str) -> Path:
    return FOLDER / dataset / f"{model}.npz"
