"""Values of the metrics of each user, kept beside the saved lines, and how far one model is ahead of another by them.

`var/quality/<dataset>/<model>.npz`, one float32 array (users,) a metric, by its name. The users are those of the
training part (of `late` splits: of both parts) by ascending number of the id that the data set's files give them; nan
where a user has nothing to find. Two models of a data set are thus compared element by element.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ranking import Values
from recsys_spark.metrics.confidence import GROUPS, GroupSums, paired_difference

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


def beside_peers(dataset: str, values: Values) -> dict[str, Any]:
    """How far the values of users are ahead of those of each peer measured here, by metric, the best of them first.

    Values that an earlier form of the data set has left, of another number of users, are not looked at.
    """
    peers = kept_models(dataset, "peer:")
    return {
        metric: beside(
            each, {name: kept[metric] for name, kept in peers.items() if np.shape(kept.get(metric)) == each.shape}
        )
        for metric, each in values.items()
    }


def beside(values: NDArray[np.floating], peers: dict[str, NDArray[np.floating]]) -> dict[str, Any]:
    means = {name: round(float(np.nanmean(found)), 4) for name, found in peers.items()}
    in_order = sorted(peers, key=lambda name: (-means[name], name))
    return {name: {"peer_mean": means[name]} | ahead_of(values, peers[name]) for name in in_order}


def ahead_of(values: NDArray[np.floating], others: NDArray[np.floating]) -> dict[str, float]:
    """How far values of users are ahead of others of the same users: mean, 95 % interval, p value."""
    sums = [sums_of(each.astype(np.float64)) for each in (values, others)]
    return {name: float(f"{value:.4g}") for name, value in paired_difference(*sums)._asdict().items()}


def sums_of(values: NDArray[np.float64]) -> GroupSums:
    """Of users at their positions; nan where there is nothing to find."""
    is_known, groups = ~np.isnan(values), np.arange(len(values)) % GROUPS
    counts = np.bincount(groups, is_known, GROUPS).astype(np.int64)
    return GroupSums(np.bincount(groups, np.nan_to_num(values), GROUPS), counts)


def t_of(gain: NDArray[np.float64]) -> float:
    """Of paired differences; 0 where there are none."""
    return round(float(gain.mean() / (gain.std() / np.sqrt(len(gain)))), 2) if gain.any() else 0.0
