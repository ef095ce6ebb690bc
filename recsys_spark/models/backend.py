"""The one place that imports Keras and TensorFlow, so that it happens quietly.

`from recsys_spark.models.backend import keras, ops, tf`; importing the rest of the package stays cheap.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keras", "ops", "tf"]


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


os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with _quiet():
    # TensorFlow writes about missing GPUs before its log level applies, here and at the first look for devices.
    import keras
    import tensorflow as tf
    from keras import ops

    tf.config.list_physical_devices()

if keras.backend.backend() != "tensorflow":
    raise ImportError(f"KERAS_BACKEND must be 'tensorflow', got {keras.backend.backend()!r}")
