"""Checks what is about to be published; a failed check refuses the run and the one before stays current."""

from __future__ import annotations

import sys

from recsys_spark.audit import Facts, require_passed
from recsys_spark.auditing import audit_run, keep_report
from recsys_spark.config import Settings
from recsys_spark.storage.run_storage import RunStorage


def run(storage: RunStorage, settings: Settings) -> Facts:
    """Check `recommendations`, and write what was found as the folder `audit`."""
    checks = audit_run(storage, settings)
    keep_report(storage, checks)
    return require_passed(checks, storage.run.path, settings.audit.force)


if __name__ == "__main__":
    from recsys_spark.cli import main

    sys.exit(main(["audit", *sys.argv[1:]]))
