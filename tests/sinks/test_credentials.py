from __future__ import annotations

import socket
from pathlib import Path

import pytest

from recsys_spark.sinks.credentials import Credentials
from recsys_spark.sinks.errors import ExportError


def test_where_a_password_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.write_text(" with spaces \r\n")
    monkeypatch.setenv("STORE_PASSWORD", "from the environment")
    assert Credentials().password() is None
    assert Credentials(password_file=str(path)).password() == " with spaces "
    assert Credentials(password_env="STORE_PASSWORD").password() == "from the environment"


def test_a_missing_password_is_named_with_the_host(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"NO_SUCH_VARIABLE .* is not set on {socket.gethostname()}"):
        Credentials(password_env="NO_SUCH_VARIABLE").password()
    with pytest.raises(ExportError, match=r"password_file '/nowhere/a' cannot be read .* No such file"):
        Credentials(password_file="/nowhere/a").password()
    (tmp_path / "binary").write_bytes(b"\xff\xfe secret")
    with pytest.raises(ExportError, match="not UTF-8 text") as failure:
        Credentials(password_file=str(tmp_path / "binary")).password()
    assert "secret" not in str(failure.value)
    assert failure.value.__cause__ is None, "a UnicodeDecodeError holds the content"
