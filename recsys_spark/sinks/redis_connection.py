"""Connections to Redis, and what an export to it is told. Workers import this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys_spark.sinks.contract import Served
from recsys_spark.sinks.credentials import Credentials
from recsys_spark.sinks.errors import ExportError
from recsys_spark.sinks.options import Options
from recsys_spark.sinks.pacing import FEW_ATTEMPTS, retried
from recsys_spark.sinks.redis import (
    MOST_BUCKETS,
    Generation,
    Serving,
    bucket_of,
    buckets_for,
    decode_pointer,
    pointer_key,
)

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RedisOptions(Options):
    """Where to write, and what. `users` are those the run must have; `rate_limit` users a second of one task."""

    host: str
    run_id: str
    run_date: str
    users: int
    port: int = 6379
    db: int = 0
    user: str | None = None
    password_env: str | None = None
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    prefix: str = "recsys"
    grace_s: int = 3600
    unfinished_s: int = 6 * 3600
    rate_limit: float | None = None

    @property
    def generation(self) -> Generation:
        """The keys of the run."""
        return Generation(self.prefix, self.run_id, buckets_for(self.users))

    @property
    def address(self) -> str:
        """For messages."""
        return f"Redis at {self.host}:{self.port}"


def connect(options: RedisOptions) -> redis.Redis:
    """A client; it connects with the first command. Trying again is up to the caller."""
    tls: Mapping[str, Any] = {"ssl": True, "ssl_ca_certs": options.ca_file} if options.tls else {}
    return redis.Redis(
        host=options.host,
        port=options.port,
        db=options.db,
        username=options.user,
        password=Credentials(options.password_env, options.password_file).password(),
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        **tls,
    )


def served_run(options: RedisOptions) -> Served | None:
    """The run that Redis serves, for the driver.

    Raises:
        ExportError: when Redis cannot be asked, and what to look at.
    """
    try:
        serving = retried(lambda: current_serving(connect(options), options), is_transient, FEW_ATTEMPTS)
    except redis.RedisError as error:
        raise ExportError(explain(options, error)) from error
    return None if serving is None else Served(serving.run_id, date.fromisoformat(serving.run_date))


def forget_user(options: RedisOptions, user_id: str) -> int:
    """Take the lists of a user out of every generation, served or not; give their number. Walks all keys once.

    Raises:
        ExportError: when Redis cannot be asked, and what to look at.
    """
    client, places = connect(options), _places_of(user_id)
    start = f"{options.prefix}:"

    def forget() -> int:
        keys = [key.decode() for key in client.scan_iter(f"{start}*", 1_000, _type="hash")]
        own = [key for key in keys if key.removeprefix(start).partition(":")[2] in places]
        return sum(int(client.hdel(key, user_id)) for key in own)

    try:
        return retried(forget, is_transient, FEW_ATTEMPTS)
    except redis.RedisError as error:
        raise ExportError(explain(options, error)) from error


def _places_of(user_id: str) -> set[str]:
    """The buckets a user may be in, however many a generation has: their number is a power of two."""
    return {str(bucket_of(user_id, 2**power)) for power in range(MOST_BUCKETS.bit_length())}


def is_transient(error: Exception) -> bool:
    """Whether it may go away by itself; a wrong password does not."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    return isinstance(error, redis.ConnectionError | redis.TimeoutError)


def explain(options: RedisOptions, error: Exception) -> str:
    """What is wrong and what to look at."""
    reason = str(error).rstrip(".")
    if isinstance(error, redis.AuthenticationError):
        who = f"user {options.user!r}" if options.user else "the default user"
        return f"{options.address} refused {who}: {reason}; look at user and {_source(options)}"
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return f"{options.address} cannot be reached: {reason}; look at host and port, and whether it runs"
    return f"{options.address}: {reason}"


def _source(options: RedisOptions) -> str:
    given = options.password_env and f"password_env = {options.password_env!r}"
    given = given or (options.password_file and f"password_file = {options.password_file!r}")
    return given or "password_env or password_file, of which neither is set"


def current_serving(client: redis.Redis, options: RedisOptions) -> Serving | None:
    """The pointer, as far as there is one."""
    try:
        return decode_pointer(client.get(pointer_key(options.prefix)))
    except (ValueError, TypeError) as error:
        raise ExportError(f"{options.address}, key {pointer_key(options.prefix)}: {error}") from error
