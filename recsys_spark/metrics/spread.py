"""How lists spread over the items, from how often each item is listed: metrics of all lists together.

As RecBole 1.2.1 defines them (`recbole.evaluator.metrics`) for lists of k items; shorter lists count as what they hold.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TAIL_SHARE = 0.1

Counts = NDArray[np.int64]


class TrainingCounts(NamedTuple):
    """How many training interactions each item has, (items,), and how many users have any."""

    items: Counts
    n_users: int


def spread_metrics(listed: Counts, trained: TrainingCounts) -> dict[str, float]:
    """Compute metrics of lists in which each item stands so many times, (items,).

    `item_coverage`: the share of the items that are in any list. `gini_index`: 0 where all items are listed as often,
    near 1 where few are. `shannon_entropy`: that of the listed items, in nats, divided by how many different ones there
    are. `average_popularity`: training interactions of a listed item, in the mean. `tail_percentage`: the share of
    listed ones among the tenth of the trained items with the fewest interactions, ties by the smaller position.
    `novelty`: the mean of -log2 of the share of users who have the listed item, one user where nobody has: Castells et
    al., "Novelty and Diversity Metrics for Recommender Systems", 2011. Without a listed item only the coverage is
    defined. Memory: 40 bytes an item.
    """
    n_items, total = len(listed), int(listed.sum())
    metrics = {"item_coverage": float((listed > 0).sum() / max(n_items, 1))}
    if total == 0:
        return metrics
    counts = np.sort(listed)
    places = 2 * np.arange(1, n_items + 1) - n_items - 1
    shares = counts[counts > 0] / total
    shared = listed / total
    users = np.maximum(trained.items, 1) / max(trained.n_users, 1)
    return metrics | {
        "gini_index": float((places * counts).sum() / total / n_items),
        "shannon_entropy": float(-(shares * np.log(shares)).sum() / len(shares)),
        "average_popularity": float((shared * trained.items).sum()),
        "tail_percentage": float(shared[_tail(trained.items)].sum()),
        "novelty": float(-(shared * np.log2(np.minimum(users, 1.0))).sum()),
    }


def _tail(counts: Counts) -> NDArray[np.intp]:
    """The trained items with the fewest interactions, at least one where any is trained."""
    known = np.flatnonzero(counts)
    rarest = known[np.argsort(counts[known], kind="stable")]
    return rarest[: max(int(TAIL_SHARE * len(known)), 1)]
