"""`df.write.format("recsys_redis")`: lists written to Redis by the tasks, served by one flip. Workers import this.

Tasks write a run's own keys, with a time to live, so that what a failed export leaves goes by itself. Writing twice
changes nothing, and once the run is served a late attempt is refused by the server. `commit` runs in a process of its
own: it counts, and then one transaction takes the time to live off the run, gives it to the run before and moves the
pointer. `abort` cleans nothing, because an attempt may still be writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import redis
from pyspark.sql.datasource import DataSource, DataSourceArrowWriter, WriterCommitMessage
from pyspark.sql.types import StructType

from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.options import checked_run_date, now_iso
from recsys_spark.sinks.pacing import Pace, retried
from recsys_spark.sinks.redis import Serving, bucket_of, pointer_key
from recsys_spark.sinks.redis_connection import RedisOptions, connect, current_serving, is_transient
from recsys_spark.sinks.texts import COLUMNS, json_lists

FORMAT = "recsys_redis"
# An attempt that is late must not put a time to live on what is served: the marker of a served run stops it.
_WRITE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local touched = {}
for i = 3, #ARGV, 3 do
  local key = ARGV[1] .. ARGV[i]
  redis.call('HSET', key, ARGV[i + 1], ARGV[i + 2])
  touched[key] = true
end
for key in pairs(touched) do redis.call('EXPIRE', key, ARGV[2]) end
return 1
"""
# The server answers nobody else while it takes a batch: about 2 ms.
_USERS_A_CALL = 500


@dataclass(frozen=True)
class WrittenUsers(WriterCommitMessage):
    """What a task has written."""

    users: int


class RedisDataSource(DataSource):
    """Writes `user_id`, `item_ids`, `scores`; options as in `RedisOptions`. Both modes make a whole generation."""

    @classmethod
    def name(cls) -> str:
        """The format."""
        return FORMAT

    def writer(self, schema: StructType, overwrite: bool) -> DataSourceArrowWriter:
        """A writer of one export."""
        missing = sorted(set(COLUMNS[:3]) - set(schema.names))
        if missing:
            raise ExportError(f"{FORMAT} needs a column {', '.join(missing)}; there are {', '.join(schema.names)}")
        options = RedisOptions.parse(self.options)
        checked_run_date(options.run_date)
        client = connect(options)
        retried(lambda: _reopen(client, options), is_transient)
        return RedisWriter(options)


class RedisWriter(DataSourceArrowWriter):
    """Pickled to every task and to the process that commits."""

    def __init__(self, options: RedisOptions) -> None:
        self.options = options

    def write(self, iterator: Iterator[pa.RecordBatch]) -> WrittenUsers:
        """Write the lists of a task, some hundred users a call."""
        client, users = connect(self.options), 0
        pace, script = Pace(self.options.rate_limit), client.register_script(_WRITE)
        for batch in iterator:
            step = pace.step(_USERS_A_CALL)
            for start in range(0, len(batch), step):
                part = batch.slice(start, step)
                pace.wait(len(part))
                arguments = self._arguments(part)
                retried(lambda: script([self.options.generation.marker], arguments), is_transient)  # noqa: B023
                users += len(part)
        return WrittenUsers(users)

    def commit(self, messages: list[WriterCommitMessage | None]) -> None:
        """Serve the run, when all users are there.

        Raises:
            ExportError: when some are not; what was served stays.
        """
        written = sum(message.users for message in messages if isinstance(message, WrittenUsers))
        client = connect(self.options)
        retried(lambda: _require_complete(client, self.options, written), is_transient)
        retried(lambda: _flip(client, self.options), lambda error: is_transient(error) or _is_race(error))

    def abort(self, messages: list[WriterCommitMessage | None]) -> None:
        """Nothing: keys have a time to live."""

    def _arguments(self, batch: pa.RecordBatch) -> list[Any]:
        generation = self.options.generation
        arguments: list[Any] = [generation.start, self.options.unfinished_s]
        users, lists = batch.column("user_id").to_pylist(), json_lists(batch).to_pylist()
        for user_id, text in zip(users, lists, strict=True):
            arguments += (bucket_of(user_id, generation.buckets), user_id, text)
        return arguments


def _reopen(client: redis.Redis, options: RedisOptions) -> None:
    """A run that was served before may be written again: from here on it is unfinished."""
    generation, serving = options.generation, current_serving(client, options)
    if serving is not None and serving.run_id == options.run_id:
        raise ExportError(f"run {options.run_id} is what {options.address} serves already")
    if client.exists(generation.marker):
        with client.pipeline(transaction=True) as pipeline:
            for key in generation.keys:
                pipeline.expire(key, options.unfinished_s)
            pipeline.delete(generation.marker)
            pipeline.execute()


def _require_complete(client: redis.Redis, options: RedisOptions, written: int) -> None:
    """Count what Redis holds; no key may go while it is counted and served."""
    with client.pipeline(transaction=False) as pipeline:
        for key in options.generation.keys:
            pipeline.expire(key, options.unfinished_s)
            pipeline.hlen(key)
        held = sum(pipeline.execute()[1::2])
    if not held == written == options.users:
        raise ExportError(
            f"run {options.run_id} has {options.users:,} users, {written:,} were written and {options.address} holds "
            f"{held:,}: it does not serve them; look at its memory and eviction policy"
        )


def _flip(client: redis.Redis, options: RedisOptions) -> None:
    """One transaction, which fails when another export has moved the pointer meanwhile."""
    generation, pointer = options.generation, pointer_key(options.prefix)
    serving = Serving(options.run_id, options.run_date, generation.buckets, options.users, now_iso())
    with client.pipeline(transaction=True) as pipeline:
        pipeline.watch(pointer)  # type: ignore[no-untyped-call]
        before = current_serving(pipeline, options)
        if before is not None and before.run_id == options.run_id:
            return  # the answer to an earlier try was lost
        pipeline.multi()
        for key in generation.keys:
            pipeline.persist(key)
        pipeline.set(generation.marker, serving.exported_at)
        pipeline.set(pointer, serving.encode())
        if before is not None:
            old = before.generation(options.prefix)
            for key in [*old.keys, old.marker]:
                pipeline.expire(key, options.grace_s)
        pipeline.execute()


def _is_race(error: Exception) -> bool:
    return isinstance(error, redis.WatchError)
