"""Some of the users with all of their rows, the same ones whenever and however the input is read."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recsys_spark.transforms.events import named

_HASHES = 1_000_000


def keep_users(rows: DataFrame, column: str, share: float, seed: int) -> DataFrame:
    """The rows of about this share of the users, chosen by a hash of their id; rows without an id are left out."""
    user = named(column).cast("string")
    point = F.pmod(F.xxhash64(F.lit(seed), user), F.lit(_HASHES)) / F.lit(_HASHES)
    return rows.where(user.isNotNull() & (point < share))
