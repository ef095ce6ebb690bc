"""Learns what items are like from their attributes: features on Spark, an autoencoder on the driver."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts
from recsys_spark.config import Settings
from recsys_spark.storage.run_storage import RunStorage


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Write `content_terms`, `item_content` and the folder `content`."""
    if not settings.content.attributes:
        return {"skipped": "[content] names no attributes"}
    from recsys_spark import contents  # TensorFlow takes seconds to import; only this step and `train` need it

    contents.write_features(storage, settings.content)
    return contents.embed_items(storage, settings)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["embed_content", *sys.argv[1:]]))
