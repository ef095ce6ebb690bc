import errno
import mmap
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys_spark.errors import RecsysError
from recsys_spark.model_sections import ModelSettings
from recsys_spark.models.interactions import TrainingPairs, make_array, select_trained
from recsys_spark.models.training import fit_embeddings
from tests.models.conftest import split_checkerboard, to_pairs


def test_pairs_are_sorted_by_user_and_item() -> None:
    pairs = to_pairs([(1, 0), (0, 2), (1, 1), (0, 0)], 2, 3, [0.1, 0.2, 0.3, 0.4])
    assert pairs.user_idx.tolist() == [0, 0, 1, 1]
    assert pairs.item_idx.tolist() == [0, 2, 0, 1]
    assert pairs.rating.tolist() == pytest.approx([0.4, 0.2, 0.1, 0.3])
    assert (pairs.user_idx.dtype, pairs.item_idx.dtype, pairs.rating.dtype) == (np.int32, np.int32, np.float32)
    assert pairs.user_counts().tolist() == [2, 2]
    assert pairs.item_counts().tolist() == [2, 1, 1]
    assert pairs.indptr().tolist() == [0, 2, 4]


def test_sorting_takes_as_much_memory_again() -> None:
    n_users, n_items = 20_000, 3_000
    random = np.random.default_rng(0)
    chosen = random.choice(n_users * n_items, 2_000_000, replace=False)
    users, items = (chosen // n_items).astype(np.int32), (chosen % n_items).astype(np.int32)
    ratings = random.random(len(chosen), dtype=np.float32)
    tracemalloc.start()
    try:
        pairs = TrainingPairs(users, items, ratings, n_users, n_items)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12.5 * len(chosen) + 16 * n_users
    order = np.argsort(chosen)
    assert np.array_equal(pairs.user_idx, users[order])
    assert np.array_equal(pairs.item_idx, items[order])
    assert np.array_equal(pairs.rating, ratings[order])


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [(2, 0, r"user_idx\[0\] = 2 is out of range 0..1"), (-1, 0, r"user_idx\[0\] = -1"), (0, 3, r"item_idx\[0\] = 3")],
)
def test_an_index_out_of_range_is_refused(user: int, item: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_pairs([(user, item)], 2, 3)


def test_an_index_beyond_32_bits_is_refused_and_not_wrapped() -> None:
    with pytest.raises(ValueError, match="out of range"):
        TrainingPairs(np.array([2**32]), np.array([0]), np.ones(1, np.float32), 2, 3)


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        TrainingPairs(np.zeros(2, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32), 1, 1)
    with pytest.raises(ValueError, match="not numbers"):
        to_pairs([(0, 0)], 1, 1, [np.nan])
    with pytest.raises(ValueError, match="given twice"):
        to_pairs([(0, 1), (0, 0), (0, 1)], 1, 2)
    with pytest.raises(ValueError, match="whole numbers"):
        TrainingPairs(np.zeros(1), np.zeros(1, np.int32), np.ones(1, np.float32), 1, 1)


def test_items_are_left_out_before_users() -> None:
    # Item 0 has one pair. Without it user 0 has one left, so he goes too; item 3 then loses its only other pair's user.
    pairs = to_pairs([(0, 0), (0, 3), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3), (2, 2)], 4, 5)
    part = select_trained(pairs, min_user_interactions=2, min_item_interactions=2)
    assert part.users.tolist() == [2, 3]
    assert part.items.tolist() == [1, 2, 3]
    assert part.pairs.user_idx.tolist() == [0, 0, 0, 1, 1, 1]
    assert part.pairs.item_idx.tolist() == [0, 1, 2, 0, 1, 2]


def test_nothing_left_to_train_on_is_an_error_that_names_the_settings() -> None:
    with pytest.raises(RecsysError, match=r"model\.min_user_interactions = 3"):
        select_trained(to_pairs([(0, 0), (1, 0)], 2, 1), 3, 1)
    with pytest.raises(RecsysError, match="0 pairs"):
        select_trained(to_pairs([], 2, 1), 1, 1)


def test_arrays_made_from_mapped_pairs_are_files_that_go_with_them(tmp_path: Path) -> None:
    in_memory = to_pairs([(0, 0), (0, 3), (2, 1), (2, 3), (3, 1), (3, 2), (3, 3), (2, 2)], 4, 5)
    pairs = replace(in_memory, scratch=tmp_path)
    part, expected = select_trained(pairs, 2, 2), select_trained(in_memory, 2, 2)
    for name in ("user_idx", "item_idx", "rating"):
        array = getattr(part.pairs, name)
        assert array.tolist() == getattr(expected.pairs, name).tolist()
        assert is_mapped(array)
        assert not is_mapped(getattr(expected.pairs, name))
    assert part.pairs.scratch == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(RecsysError, match=r"has no room for 400 bytes of pairs .*No space left.*TMPDIR"):
        make_array(tmp_path, np.int32, 100)
    assert list(tmp_path.iterdir()) == []


def is_mapped(array: NDArray[Any]) -> bool:
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base is not None


@pytest.mark.slow
def test_a_mapped_training_gives_the_same_bits(tmp_path: Path) -> None:
    pairs, _ = split_checkerboard()
    for loss in ("ials", "spectral", "bpr", "softmax"):
        settings = ModelSettings(loss=loss, embedding_dim=8, batch_size=64, min_item_interactions=8)
        fits = [fit_embeddings(each, settings, 0, epochs=2) for each in (pairs, replace(pairs, scratch=tmp_path))]
        assert fits[0].embeddings.item_vectors.tobytes() == fits[1].embeddings.item_vectors.tobytes()
        assert fits[0].embeddings.user_vectors.tobytes() == fits[1].embeddings.user_vectors.tobytes()
