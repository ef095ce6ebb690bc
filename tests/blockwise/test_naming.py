from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from recsys_spark.blockwise.files import MappedStrings, distribute_strings, write_strings
from recsys_spark.blockwise.naming import with_dictionaries, with_names

N_NAMES = 300
LISTS = st.lists(st.lists(st.integers(0, N_NAMES - 1), max_size=9), max_size=30)
FEW = st.lists(st.lists(st.integers(0, 5), max_size=9), max_size=30)


@pytest.fixture(scope="module")
def strings(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> MappedStrings:
    ids = [f"name {position}" for position in range(N_NAMES)]
    chunks = (pa.array(ids[start : start + 100]) for start in range(0, N_NAMES, 100))
    return distribute_strings(spark, write_strings(tmp_path_factory.mktemp("names") / "names.arrow", chunks))


@settings(max_examples=60, deadline=None)
@given(lists=LISTS | FEW, cut=st.integers(0, 10))
def test_positions_become_strings(strings: MappedStrings, lists: list[list[int]], cut: int) -> None:
    kind = pa.list_(pa.field("element", pa.int64(), nullable=False))
    batch = pa.record_batch({"number": np.arange(len(lists)), "ids": pa.array(lists, kind)})
    first, last = batch.slice(0, cut), batch.slice(cut)
    expected = [[f"name {position}" for position in some] for some in lists]
    named = [row["ids"] for part in (first, last) for row in with_names(part, {"ids": strings}).to_pylist()]
    assert named == expected
    coded = with_dictionaries(pa.Table.from_batches([first, last]), {"ids": strings})
    assert coded.column("ids").to_pylist() == expected
    assert coded.column("number").to_pylist() == list(range(len(lists)))
    if lists:
        dictionary = coded.column("ids").chunk(0).values.dictionary.to_pylist()
        assert sorted(dictionary) == sorted({name for names in expected for name in names})


def test_only_the_name_of_a_mapped_file_travels(strings: MappedStrings) -> None:
    import pickle

    before = len(pickle.dumps(MappedStrings(strings.name)))
    strings.load()
    assert len(pickle.dumps(strings)) == before
    assert pickle.loads(pickle.dumps(strings)) == strings  # noqa: S301 - its own
