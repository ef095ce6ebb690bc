"""Makes a run whose steps have all finished the one that readers see: the manifest, then the pointer, then stores."""

from __future__ import annotations

import sys

from recsys_spark.night import Night, publish_run
from recsys_spark.sinks.exporting import deliver


def run(night: Night) -> None:
    """Write the manifest, move the pointer, export the lists where the settings say so."""
    publish_run(night)
    deliver(night.storage, night.settings, night.console)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["publish", *sys.argv[1:]]))
