"""Finds a Java that Spark runs on. Standard library only: `make` runs this file before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = (17, 21)


def java_problem() -> str | None:
    """One line that says what to install, or None when a fitting Java is there."""
    wanted = "install Java 17 or 21 (for example `apt-get install openjdk-17-jre-headless`) or point JAVA_HOME at one"
    home = os.environ.get("JAVA_HOME")
    command = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(command) is None:
        return f"Spark needs Java and {command!r} was not found: {wanted}"
    answer = subprocess.run([command, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    if match is None:
        return f"Spark needs Java and {command!r} does not tell its version: {wanted}"
    if int(match[1]) not in SUPPORTED:
        return f"Spark needs Java 17 or 21 and {command!r} is Java {match[1]}: {wanted}"
    return None


def require_java() -> None:
    """Raise a SettingsError when Spark would not start."""
    from recsys_spark.errors import SettingsError

    problem = java_problem()
    if problem:
        raise SettingsError(problem)


if __name__ == "__main__":
    sys.exit(java_problem())
