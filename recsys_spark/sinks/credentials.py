"""Passwords, from where the settings say they are: an environment variable or a file. Never logged, never an option."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from recsys_spark.sinks.errors import ExportError


@dataclass(frozen=True)
class Credentials:
    """Where a password is found. The driver and each executor look for themselves, so that it is never sent."""

    password_env: str | None = None
    password_file: str | None = None

    def password(self) -> str | None:
        """The password; None when there is none. A line break at the end of a file does not count.

        Raises:
            ExportError: when the variable is not set or the file cannot be read, naming it and this host.
        """
        if self.password_env is not None:
            return self._from_environment(self.password_env)
        return None if self.password_file is None else self._from_file(self.password_file)

    @staticmethod
    def _from_environment(name: str) -> str:
        if name not in os.environ:
            raise ExportError(
                f"environment variable {name} (password_env) is not set on {socket.gethostname()}: "
                "the driver and every executor need it, or name a file in password_file"
            )
        return os.environ[name]

    @staticmethod
    def _from_file(path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ExportError(
                f"password_file {path!r} cannot be read on {socket.gethostname()}: {reason}; "
                "the driver and every executor need it"
            ) from None
