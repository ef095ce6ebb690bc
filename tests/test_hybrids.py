from __future__ import annotations

import numpy as np
import pytest

from recsys_spark.hybrids import blend_facts
from recsys_spark.kernels.stacking import CandidateLists, list_ndcgs

USERS, EACH, K = 800, 20, 5


def candidates(helps: str, seed: int = 0) -> tuple[CandidateLists, np.ndarray]:
    """Two components, noisy each, and a relevant item a user; the second tells it to those it helps.

    Of those of few items it tells the more, and misleads the others.
    """
    random = np.random.default_rng(seed)
    history = random.integers(1, 100, USERS)
    relevant = np.zeros((USERS, EACH), bool)
    relevant[np.arange(USERS), random.integers(0, EACH, USERS)] = True
    noise = random.standard_normal((2, USERS, EACH))
    told = {"everybody": np.full(USERS, 1.5), "nobody": np.zeros(USERS), "those of few": np.where(history < 50, 3, -3)}
    first, second = noise[0] + 1.5 * relevant, noise[1] + told[helps][:, None] * relevant
    scores = np.stack([first.ravel(), second.ravel()], axis=1).astype(np.float32)
    indptr = np.arange(0, USERS * EACH + 1, EACH)
    return CandidateLists(indptr, scores, relevant.ravel(), np.ones(USERS, np.int64)), history


def test_two_that_tell_different_things_are_blended() -> None:
    facts = blend_facts(*candidates("everybody"), (50,), K)
    assert facts["is_blended"]
    assert facts["gain"] > 5 * facts["gain_standard_error"] > 0
    assert facts["gain"] == pytest.approx(facts["blend_ndcg"] - max(facts["ndcgs"]), abs=1e-5)
    for first, second in facts["weights"]:
        assert 0.5 < first / second < 2


def test_one_that_tells_nothing_gets_next_to_no_weight_or_none() -> None:
    found = [blend_facts(*candidates("nobody", seed), (50,), K) for seed in range(8)]
    for facts in found:
        assert facts["best_component"] == 0
        for first, second in facts["weights"]:
            assert second < 0.05 * first
    alone = [facts for facts in found if not facts["is_blended"]]
    assert alone
    assert all((facts["segments"], facts["weights"]) == ([], [[1.0, 0.0]]) for facts in alone)


@pytest.mark.parametrize(("loss", "is_blended"), [(0.0, True), (0.5, True), (1.5, False)])
def test_the_best_is_alone_where_the_blend_is_worse_by_a_standard_error(
    loss: float, is_blended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, history = candidates("everybody")
    alone = [list_ndcgs(lists, lists.scores[:, place], K) for place in range(2)]
    best = int(np.argmax([ndcgs.mean() for ndcgs in alone]))
    differences = np.tile([-1.0, 1.0], USERS // 2)
    judged = alone[best] + differences - loss / np.sqrt(USERS)  # of differences of standard deviation 1
    monkeypatch.setattr("recsys_spark.hybrids.cross_fitted_ndcgs", lambda *_: (judged - 1e-9, judged))
    facts = blend_facts(lists, history, (50,), K)
    assert facts["gain"] == pytest.approx(-loss * facts["gain_standard_error"], abs=1e-5)
    assert facts["is_blended"] == is_blended
    expected = [[float(place == best) for place in range(2)]]
    assert (facts["weights"] == expected and facts["segments"] == []) != is_blended


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("helps", ["everybody", "nobody", "those of few"])
def test_there_is_a_blend_unless_it_is_worse_by_more_than_chance(helps: str, seed: int) -> None:
    facts = blend_facts(*candidates(helps, seed), (50,), K)
    weights = np.array(facts["weights"])
    assert facts["is_blended"] == (facts["gain"] > -facts["gain_standard_error"])
    assert weights.shape == (len(facts["segments"]) + 1, 2)
    assert (weights >= 0).all()
    assert weights.any(axis=1).all()


def test_segments_have_weights_of_their_own_where_that_gains() -> None:
    facts = blend_facts(*candidates("those of few"), (50,), K)
    assert facts["segments"] == [50]
    (few_first, few_second), (_, many_second) = facts["weights"]
    assert few_second > few_first
    assert many_second == 0
    alike = blend_facts(*candidates("those of few"), (), K)
    assert alike["segments"] == []
    assert alike["gain"] < facts["gain"]


def test_without_a_list_everything_counts_the_same() -> None:
    lists, history = candidates("everybody")
    facts = blend_facts(lists.some(np.zeros(USERS, bool)), history[:0], (50,), K)
    assert facts["weights"] == [[1.0, 1.0]]
