"""The one place that imports Keras and what it runs on, so that it happens quietly.

`from recsys_spark.models.backend import keras, ops, steps`; importing the rest of the package stays cheap. `steps` is
what Keras has no operation for: sparse gradients of tables, and numbers drawn by seed and step. `KERAS_BACKEND` chooses
`tensorflow`, the default, or `torch`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BACKEND", "keras", "ops", "steps"]


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr; show it when the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            sink.seek(0)
            os.write(kept, sink.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence, unless the user asks for TensorFlow's messages with TF_CPP_MIN_LOG_LEVEL=0 or 1."""
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1"):
        yield
        return
    with _silenced_stderr():
        yield


BACKEND = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if BACKEND not in ("tensorflow", "torch"):
    raise ImportError(f"KERAS_BACKEND must be 'tensorflow' or 'torch', got {BACKEND!r}")
with _quiet():
    import keras
    from keras import ops

    if BACKEND == "tensorflow":
        from recsys_spark.models import tensorflow_steps as steps
    else:
        from recsys_spark.models import torch_steps as steps  # type: ignore[no-redef]
