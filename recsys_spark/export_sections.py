"""The sections of the settings about the stores that lists are exported to: `[exports.NAME]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from recsys_spark.sections import Section, SourcePath

SECRET_KEY = re.compile(r"secret|pass(word|wd|phrase)?$|token|credential|(access|account|api).?key", re.IGNORECASE)
_SECRET_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_NO_PASSWORDS = "settings hold no passwords: name an environment variable in password_env or a file in password_file"


def _without_secret(text: str) -> str:
    if _SECRET_IN_URL.search(text):
        raise ValueError(f"the URL holds a password; {_NO_PASSWORDS}")
    return text


def _host(text: str) -> str:
    if "@" in text or "://" in text:
        raise ValueError(f"it must be the name or address of a host alone, no URL; {_NO_PASSWORDS}")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError("password_env must be the name of an environment variable, not the password itself")
    return text


Host = Annotated[str, AfterValidator(_host), Field(min_length=1)]
Location = Annotated[SourcePath, AfterValidator(_without_secret)]
Variable = Annotated[str, AfterValidator(_variable)]
Identifier = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$", max_length=40)]


class ExportSection(Section):
    """What all exports have. A key that would hold a secret is refused without a word of what it held."""

    deliver: bool = Field(False, description="Whether a night exports here once its run is published.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_secrets(cls, content: Any) -> Any:
        if isinstance(content, Mapping):
            for key, value in content.items():
                if key not in cls.model_fields and (SECRET_KEY.search(str(key)) or key in ("url", "uri", "dsn")):
                    raise ValueError(f"{key} cannot be set: {_NO_PASSWORDS}")
                if isinstance(value, str) and _SECRET_IN_URL.search(value):
                    raise ValueError(f"{key} holds a URL with a password; {_NO_PASSWORDS}")
        return content


class LoginSection(ExportSection):
    """A server and who logs in. The driver and every executor read the password by themselves."""

    host: Host = Field(description="Name or address of the server.")
    user: str | None = Field(None, description="Who logs in.")
    password_env: Variable | None = Field(None, description="Environment variable that holds the password.")
    password_file: SourcePath | None = Field(None, description="File that holds the password, on every host.")
    ca_file: SourcePath | None = Field(None, description="Certificates that the server's must descend from.")
    rate_limit: float | None = Field(
        None, gt=0, description="Most users a second, all tasks together; as fast as it goes if left out."
    )
    tasks: int | None = Field(
        None, ge=1, description="Most tasks that write, each with a connection; a task a file of the lists if left out."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("name either password_env or password_file, not both")
        return self


class RedisExport(LoginSection):
    """Lists in Redis, a hash a thousand users ([layout](serving.md#redis))."""

    kind: Literal["redis"]
    port: int = Field(6379, ge=1, le=65535, description="Port of the server.")
    db: int = Field(0, ge=0, description="Number of the database.")
    tls: bool = Field(False, description="Whether to connect over TLS.")
    prefix: str = Field("recsys", pattern=r"^[A-Za-z0-9._:-]+$", description="What all keys start with.")
    grace_s: int = Field(3_600, ge=60, description="Seconds that a run stays after the next one is served.")
    unfinished_s: int = Field(
        21_600, ge=600, description="Seconds after which the keys of a failed export are gone; longer than it takes."
    )


class PostgresExport(LoginSection):
    """Lists in PostgreSQL, one row a user behind a view ([layout](serving.md#postgresql))."""

    kind: Literal["postgres"]
    port: int = Field(5432, ge=1, le=65535, description="Port of the server.")
    database: str = Field(description="Name of the database.")
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="As libpq's; `verify-full` outside of a private network."
    )
    schema_name: Identifier = Field("public", description="Schema of all tables.")
    table: Identifier = Field("recommendations", description="Name of the view; the tables' names start with it.")
    grace_s: int = Field(86_400, ge=60, description="Seconds that a run stays after the next one is served.")
    unfinished_s: int = Field(
        86_400, ge=600, description="Seconds after which the table of a failed export may go; longer than it takes."
    )


class FilesExport(ExportSection):
    """What exports to files have."""

    kind: Literal["jsonl", "csv"]
    path: Location = Field(description="Folder of the feed; any path Spark can write.")
    delta: bool = Field(False, description="Whether to write, too, what changed since the run before.")
    delta_scores: bool = Field(
        True, description="Whether a list of the same items in the same order with other scores counts as changed."
    )
    compression: Literal["none", "gzip"] = Field("none", description="Of the files.")
    keep: int = Field(7, ge=2, description="Runs whose files are kept.")


class JsonlExport(FilesExport):
    """Lists as JSON Lines, one line a user ([layout](serving.md#files))."""

    kind: Literal["jsonl"]


class CsvExport(FilesExport):
    """Lists as CSV, one line a recommendation ([layout](serving.md#files))."""

    kind: Literal["csv"]


class IcebergExport(ExportSection):
    """Lists as a table of an Iceberg catalog ([layout](serving.md#iceberg)); needs the extra `iceberg`."""

    kind: Literal["iceberg"]
    catalog: str = Field(
        "default", description="Name of the catalog; pyiceberg finds its credentials in its own configuration."
    )
    catalog_uri: Location | None = Field(None, description="Such as `sqlite:////data/catalog.db` or a REST catalog's.")
    warehouse: Location = Field(description="Where the data files and the table's own files lie.")
    table: str = Field("recsys.recommendations", pattern=r"^[A-Za-z0-9_]+\.[A-Za-z0-9_]+$", description="Its name.")
    delta: bool = Field(False, description="Whether `<table>_changes` gets what changed since the run before.")
    delta_scores: bool = Field(
        True, description="Whether a list of the same items in the same order with other scores counts as changed."
    )
    keep: int = Field(7, ge=2, description="Runs whose snapshots and files are kept.")


StoreExport = Annotated[
    RedisExport | PostgresExport | JsonlExport | CsvExport | IcebergExport, Field(discriminator="kind")
]
ExportName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
