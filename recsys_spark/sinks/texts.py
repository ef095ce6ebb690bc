"""Lists as the text of a store, a batch at a time in Arrow: JSON for Redis, lines of COPY for PostgreSQL."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ("user_id", "item_ids", "scores", "tier")


def json_lists(batch: pa.RecordBatch) -> pa.StringArray:
    """`[["item", ...],[score, ...]]` of each user, UTF-8, scores in the shortest form that gives the same float32.

    Raises:
        ValueError: when a score is not finite, which JSON cannot hold.
    """
    items, scores = batch.column("item_ids"), batch.column("scores")
    _require_finite(batch)
    joined = pc.binary_join(_relist(items, _quoted_json(items.flatten())), ",")
    numbers = pc.binary_join(_relist(scores, pc.cast(scores.flatten(), pa.string())), ",")
    return pc.binary_join_element_wise("[[", joined, "],[", numbers, "]]", "")


def copy_rows(batch: pa.RecordBatch) -> bytes:
    r"""Lines of `COPY ... (user_id, item_ids, scores, tier) FROM STDIN` in text format.

    Raises:
        ValueError: when an id holds the character NUL, which PostgreSQL cannot store.
    """
    items, scores = batch.column("item_ids"), batch.column("scores")
    users = batch.column("user_id")
    for name, ids in (("user_id", users), ("item_ids", items.flatten())):
        if pc.any(pc.match_substring(ids, "\0")).as_py():
            raise ValueError(f"{name} holds an id with the character NUL, which PostgreSQL cannot store")
    array = pc.binary_join(_relist(items, _quoted_element(items.flatten())), ",")
    numbers = pc.binary_join(_relist(scores, pc.cast(scores.flatten(), pa.string())), ",")
    lines = pc.binary_join_element_wise(
        _escaped(users), "\t{", _escaped(array), "}\t{", numbers, "}\t", _escaped(batch.column("tier")), "\n", ""
    )
    return _content(lines)


def _require_finite(batch: pa.RecordBatch) -> None:
    is_finite = pc.is_finite(batch.column("scores").flatten())
    if not pc.all(is_finite, min_count=0).as_py():
        raise ValueError("scores hold a value that is not finite, which JSON cannot hold")


def _quoted_json(ids: pa.Array) -> pa.Array:
    """Each id as a JSON string; popular items come many times, so each is made once."""
    encoded = pc.dictionary_encode(ids)
    quoted = [json.dumps(text, ensure_ascii=False) for text in encoded.dictionary.to_pylist()]
    return pa.array(quoted, pa.string()).take(encoded.indices)


def _quoted_element(ids: pa.Array) -> pa.Array:
    """Each id as an element of an array literal."""
    escaped = pc.replace_substring(pc.replace_substring(ids, "\\", "\\\\"), '"', '\\"')
    return pc.binary_join_element_wise('"', escaped, '"', "")


def _escaped(texts: pa.Array) -> pa.Array:
    """As COPY wants them: the backslash first, or it would escape the escapes."""
    for raw, escape in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        texts = pc.replace_substring(texts, raw, escape)
    return texts


def _relist(lists: pa.Array, values: pa.Array) -> pa.Array:
    """The lists with other values; a slice of an array need not start at its first value."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(offsets, values)


def _content(lines: pa.Array) -> bytes:
    """All lines in a row."""
    if len(lines) == 0:
        return b""
    joined = pc.binary_join(pa.LargeListArray.from_arrays([0, len(lines)], lines), "")
    content: bytes = joined[0].as_buffer().to_pybytes()
    return content
