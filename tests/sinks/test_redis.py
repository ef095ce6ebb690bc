from __future__ import annotations

import json

import pytest

from recsys_spark.sinks.contract import Served
from recsys_spark.sinks.redis import RecommendationReader, bucket_of, buckets_for
from tests.sinks.conftest import DAY
from tests.sinks.servers import RedisServer


def test_buckets_hold_some_thousand_users() -> None:
    assert [buckets_for(users) for users in (0, 1, 1_000, 1_001, 5_000, 10**6, 10**9)] == [1, 1, 1, 2, 8, 1024, 16_384]


def test_the_bucket_is_the_crc_32_that_other_languages_have() -> None:
    """0xCBF43926 is the check value of CRC-32 for these digits."""
    assert bucket_of("123456789", 16_384) == 0xCBF43926 % 16_384
    assert bucket_of("é", 1) == 0


def test_the_reader_reads_the_layout_as_documented(redis_at: RedisServer) -> None:
    client = redis_at.client()
    reader = RecommendationReader(client, "by-hand", refresh_s=0)
    assert (reader.run(), reader.recommend("ann")) == (None, None)
    client.hset(f"by-hand:r1:{bucket_of('ann', 4)}", "ann", '[["tea","milk"],[0.5,1]]')
    pointer = {"format_version": 1, "run_id": "r1", "run_date": str(DAY), "buckets": 4, "users": 1, "exported_at": ""}
    client.set("by-hand:serving", json.dumps(pointer))
    assert reader.run() == Served("r1", DAY)
    assert reader.recommend("ann") == [("tea", 0.5), ("milk", 1.0)]
    assert reader.recommend("ann", 1) == [("tea", 0.5)]
    assert reader.recommend("bob") is None


def test_the_pointer_is_asked_again_after_a_while(redis_at: RedisServer) -> None:
    client = redis_at.client()
    pointer = {"format_version": 1, "run_id": "r1", "run_date": str(DAY), "buckets": 1, "users": 1, "exported_at": ""}
    client.set("slow:serving", json.dumps(pointer))
    slow, quick = RecommendationReader(client, "slow", 3600), RecommendationReader(client, "slow", 0)
    assert slow.run() == quick.run() == Served("r1", DAY)
    client.set("slow:serving", json.dumps({**pointer, "run_id": "r2"}))
    assert slow.run() == Served("r1", DAY)
    assert quick.run() == Served("r2", DAY)


def test_a_key_of_someone_else_is_not_taken_for_a_pointer(redis_at: RedisServer) -> None:
    redis_at.client().set("other:serving", "[1]")
    with pytest.raises(ValueError, match="choose another prefix"):
        RecommendationReader(redis_at.client(), "other").run()
