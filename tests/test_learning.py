"""What a training is told, and where it leaves its logs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recsys_spark import learning
from recsys_spark.errors import RecsysError
from recsys_spark.model_sections import ModelSettings

STORAGE = cast(Any, SimpleNamespace(run=SimpleNamespace(run_date="2024-03-01", run_id="r1")))


def test_logs_go_to_a_folder_of_the_run(tmp_path: Path) -> None:
    settings = ModelSettings(tensorboard=str(tmp_path))
    assert learning._log_folder(STORAGE, settings, "selection") == tmp_path / "2024-03-01-r1" / "selection"
    assert learning._log_folder(STORAGE, ModelSettings(), "model") is None


def test_logs_without_tensorboard_are_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "find_spec", lambda _: None)
    with pytest.raises(RecsysError, match=r"needs the package tensorboard: pip install 'recsys-spark\[tensorboard\]'"):
        learning._log_folder(STORAGE, ModelSettings(tensorboard="/logs"), "model")
