import numpy as np
import pytest

from recsys_spark.kernels.layout import UNTRAINED_SCORE
from recsys_spark.models.embedding import EmbeddingModel
from recsys_spark.models.embeddings import Embeddings, popularity_scores


def random_embeddings(n_users: int, n_items: int, embedding_dim: int, seed: int = 0) -> Embeddings:
    random = np.random.default_rng(seed)
    return Embeddings(
        user_vectors=random.standard_normal((n_users, embedding_dim), dtype=np.float32),
        user_biases=random.standard_normal(n_users, dtype=np.float32),
        item_vectors=random.standard_normal((n_items, embedding_dim), dtype=np.float32),
        item_biases=random.standard_normal(n_items, dtype=np.float32),
        offset=0.75,
        popularity=popularity_scores(np.arange(n_items)),
        is_trained_user=np.ones(n_users, bool),
        is_trained_item=np.ones(n_items, bool),
        is_mapped_item=np.zeros(n_items, bool),
        user_squares=random.random((n_users, 2), dtype=np.float32),
        item_squares=random.random((n_items, 2), dtype=np.float32),
    )


def with_untrained(embeddings: Embeddings, users: list[int], items: list[int]) -> Embeddings:
    embeddings.is_trained_user[users] = False
    embeddings.is_trained_item[items] = False
    return embeddings


def test_the_scoring_product_equals_the_prediction_of_keras() -> None:
    embeddings = random_embeddings(5, 4, 3)
    model = EmbeddingModel(5, 4, 3)
    model.users.assign(embeddings.user_vectors, embeddings.user_biases)
    model.items.assign(embeddings.item_vectors, embeddings.item_biases)
    model.offset.assign(embeddings.offset)
    users, items = (idx.ravel().astype(np.int32) for idx in np.meshgrid(np.arange(5), np.arange(4), indexing="ij"))
    predicted = np.asarray(model.predict((users, items), verbose=0)).reshape(5, 4)
    user_matrix, item_matrix = embeddings.scoring_vectors()
    assert user_matrix.shape == (5, 6)
    assert item_matrix.shape == (4, 6)
    assert user_matrix.dtype == item_matrix.dtype == np.float32
    assert user_matrix @ item_matrix.T == pytest.approx(predicted, abs=1e-5)


def test_untrained_users_score_by_popularity_and_untrained_items_come_last() -> None:
    embeddings = with_untrained(random_embeddings(3, 4, 2), users=[1], items=[0, 2])
    user_matrix, item_matrix = embeddings.scoring_vectors()
    scores = user_matrix @ item_matrix.T
    assert scores[1].tolist() == pytest.approx([0, np.log(2) / np.log(4), np.log(3) / np.log(4), 1])
    assert (scores[[0, 2]][:, [0, 2]] < 0.9 * UNTRAINED_SCORE).all()
    own = embeddings.user_vectors[2] @ embeddings.item_vectors[3]
    assert scores[2, 3] == pytest.approx(own + embeddings.user_biases[2] + embeddings.item_biases[3] + 0.75, abs=1e-5)


def test_popularity_of_a_catalogue_nobody_touched_is_zero() -> None:
    assert popularity_scores(np.zeros(3, np.int64)).tolist() == [0, 0, 0]


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    embeddings = random_embeddings(3, 4, 2)
    with pytest.raises(ValueError, match=r"item_biases must have shape \(4,\), got \(3,\)"):
        Embeddings(**{**vars(embeddings), "item_biases": np.zeros(3, np.float32)})
