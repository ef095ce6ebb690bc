"""Makes a run whose steps have all finished the one that readers see: the manifest, then the pointer."""

from __future__ import annotations

import sys

from recsys_spark.night import Night, publish_run


def run(night: Night) -> None:
    """Write the manifest and move the pointer."""
    publish_run(night)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["publish", *sys.argv[1:]]))
