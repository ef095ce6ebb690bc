"""How recommendations lie in Redis, and the reader of them: applications may copy this file. No Spark here.

`<prefix>:serving`          JSON: run_id, run_date, buckets, users, exported_at; replaced in one step
`<prefix>:<run_id>:<n>`     hash of the users of bucket n: user id -> `[["item", ...],[score, ...]]`, best first
`<prefix>:<run_id>:done`    there once the run was served

Bucket n of a user is the CRC-32 of the id's UTF-8 bytes modulo `buckets`.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import asdict, dataclass
from datetime import date

import redis

from recsys_spark.sinks.contract import Recommendations, Served

USERS_A_BUCKET = 1_000
MOST_BUCKETS = 16_384


@dataclass(frozen=True)
class Generation:
    """The lists of one run under a prefix."""

    prefix: str
    run_id: str
    buckets: int

    @property
    def start(self) -> str:
        """What its keys start with."""
        return f"{self.prefix}:{self.run_id}:"

    @property
    def marker(self) -> str:
        """The key that is there once the run was served."""
        return f"{self.start}done"

    @property
    def keys(self) -> list[str]:
        """The keys of its buckets; of one without users there is none."""
        return [f"{self.start}{number}" for number in range(self.buckets)]

    def key(self, user_id: str) -> str:
        """Where the list of a user is."""
        return f"{self.start}{bucket_of(user_id, self.buckets)}"


@dataclass(frozen=True)
class Serving:
    """The value of the pointer."""

    run_id: str
    run_date: str
    buckets: int
    users: int
    exported_at: str
    format_version: int = 1

    def generation(self, prefix: str) -> Generation:
        """Its lists."""
        return Generation(prefix, self.run_id, self.buckets)

    def encode(self) -> str:
        """As it is stored."""
        return json.dumps(asdict(self))


def pointer_key(prefix: str) -> str:
    """The key that says which run is served."""
    return f"{prefix}:serving"


def decode_pointer(content: bytes | str | None) -> Serving | None:
    """The value of the pointer; None where there is none.

    Raises:
        ValueError: when it is not a pointer of this format.
    """
    if content is None:
        return None
    found = json.loads(content)
    if not isinstance(found, dict) or found.get("format_version") != 1:
        raise ValueError("the key of the pointer holds something else: choose another prefix")
    return Serving(**found)


def bucket_of(user_id: str, buckets: int) -> int:
    """The bucket of a user."""
    return zlib.crc32(user_id.encode()) % buckets


def buckets_for(users: int) -> int:
    """A power of two with some thousand users a bucket: few keys to expire, none that takes long to free."""
    wanted = max(users, 1) / USERS_A_BUCKET
    buckets = 1
    while buckets < wanted and buckets < MOST_BUCKETS:
        buckets *= 2
    return buckets


class RecommendationReader:
    """Answers from the served run; asks which one that is every `refresh_s` seconds, at 0 each time.

    A run that is no longer served stays for `grace_s` of the export, which must be longer than `refresh_s`.
    """

    def __init__(self, client: redis.Redis, prefix: str = "recsys", refresh_s: float = 1.0) -> None:
        self._client, self._prefix, self._refresh_s = client, prefix, refresh_s
        self._serving: Serving | None = None
        self._asked_at = float("-inf")

    def run(self) -> Served | None:
        """What is served; None before the first export."""
        serving = self._current()
        return None if serving is None else Served(serving.run_id, date.fromisoformat(serving.run_date))

    def recommend(self, user_id: str, k: int | None = None) -> Recommendations | None:
        """The first `k` of a user's list, all of it when None; None for a user without one."""
        serving = self._current()
        if serving is None:
            return None
        content = self._client.hget(serving.generation(self._prefix).key(user_id), user_id)
        if content is None:
            return None
        items, scores = json.loads(content)
        return list(zip(items, map(float, scores), strict=True))[:k]

    def _current(self) -> Serving | None:
        now = time.monotonic()
        if self._serving is None or now - self._asked_at >= self._refresh_s:
            self._serving = decode_pointer(self._client.get(pointer_key(self._prefix)))
            self._asked_at = now
        return self._serving
