import numpy as np
import pytest

from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.features import MOST_OF_AN_ITEM, ItemFeatures, find_features, list_values
from recsys_spark.models.interactions import select_trained
from recsys_spark.models.training import build_model, fit_embeddings
from tests.models.conftest import split_checkerboard, to_pairs

WITH_FEATURES = ModelSettings.model_validate(
    {"architecture": "two_tower", "loss": "softmax", "temperature": 0.5, "embedding_dim": 8, "item_features": ["half"]}
)


def listed(features: ItemFeatures) -> list[list[int]]:
    indptr, indices = features.lists.indptr, features.lists.indices
    return [indices[indptr[item] : indptr[item + 1]].tolist() for item in range(features.lists.n_rows)]


def test_values_are_split_and_those_of_one_item_are_left_out() -> None:
    items = [
        {"genres": "Drama | war", "director": "Drama"},
        {"genres": "WAR;drama", "year": "1990"},
        {},
        {"genres": "war,Western", "director": "drama"},
    ]
    features = find_features(items, ("director", "genres"))
    # By first appearance: the director Drama, the genres drama and war; "western" is of one item.
    assert listed(features) == [[0, 1, 2], [1, 2], [], [0, 2]]
    assert features.size == 3
    assert listed(features.select(np.array([3, 2]))) == [[0, 2], []]
    assert features.padded().tolist() == [[0, 1, 2], [1, 2, 3], [3, 3, 3], [0, 2, 3]]
    assert listed(find_features(items, ("studio",))) == [[], [], [], []]
    assert listed(find_features([], ("studio",))) == []


def test_all_values_of_one_attribute() -> None:
    lists = list_values(["Drama | war", None, "WAR", "", ",".join(f"v{place:02}" for place in range(20))])
    rows = [lists.indices[start:end].tolist() for start, end in zip(lists.indptr[:-1], lists.indptr[1:], strict=True)]
    assert rows == [[0, 1], [], [1], [], list(range(2, 22))]
    assert list_values([]).n_rows == 0


def test_of_too_many_values_the_rarest_are_kept() -> None:
    many = ",".join(f"v{place:02}" for place in range(MOST_OF_AN_ITEM + 1))
    features = find_features([{"tags": many}, {"tags": many}, {"tags": "v03"}], ("tags",))
    assert len(listed(features)[0]) == MOST_OF_AN_ITEM
    assert listed(features)[2] == [3]
    assert 3 not in listed(features)[0]


def test_vectors_of_features_are_pooled() -> None:
    features = find_features([{"a": "x,y"}, {"a": "x"}, {"a": "y"}, {}], ("a",))
    vectors = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    assert features.pool(vectors) == pytest.approx(np.array([[4 / 2**0.5, 7 / 2**0.5], [1, 2], [3, 5], [0, 0]]))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_start_scores_as_it_was_given_whatever_the_features(similarity: str) -> None:
    pairs = to_pairs([(user, item) for user in range(4) for item in range(user, user + 3)], 4, 6)
    features = find_features([{"half": str(item % 2)} for item in range(6)], ("half",))
    settings = WITH_FEATURES.model_copy(update={"similarity": similarity, "spectral_start": False})
    part = select_trained(pairs, 1, 1)
    with_features, _ = build_model(part, settings, 0, None, item_features=features)
    without, _ = build_model(part, settings.model_copy(update={"item_features": ()}), 0, None)
    assert with_features.items.read()[0] == pytest.approx(without.items.read()[0], abs=1e-6)
    rows, expected = (np.asarray(model.items(np.arange(6))) for model in (with_features, without))
    assert rows == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_items_hardly_anybody_took_are_ranked_by_what_they_are_like() -> None:
    """Two new items of each half, taken by one user of the other half only: their feature tells better."""
    train, _ = split_checkerboard()
    n_items = train.n_items + 4
    pairs = [*zip(train.user_idx.tolist(), train.item_idx.tolist(), strict=True)]
    pairs += [(1, 40), (0, 41), (3, 42), (2, 43)]
    features = find_features([{"half": "even" if item % 2 == 0 else "odd"} for item in range(n_items)], ("half",))

    def share_in_own_half(item_features: ItemFeatures | None) -> float:
        settings = WITH_FEATURES if item_features else WITH_FEATURES.model_copy(update={"item_features": ()})
        settings = settings.model_copy(update={"spectral_start": False, "learning_rate": 0.03})
        fit = fit_embeddings(
            to_pairs(pairs, train.n_users, n_items), settings, 0, epochs=10, item_features=item_features
        )
        scores = fit.embeddings.user_vectors @ fit.embeddings.item_vectors[40:].T
        is_own = np.arange(train.n_users)[:, None] % 2 == np.arange(4) % 2
        best_of_own = np.where(is_own, scores, -np.inf).max(axis=1)
        return float((scores[~is_own].reshape(train.n_users, -1).max(axis=1) < best_of_own)[4:].mean())

    assert share_in_own_half(features) > 0.98
    assert share_in_own_half(None) < 0.5, "who took them says the other half"
