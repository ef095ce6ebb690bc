"""Builds the wheel and `dist/executors.tar.gz`, which `spark-submit --archives` ships to executors: `make package`.

The archive is a virtual environment packed by venv-pack: the locked dependencies of an executor and the wheel. It has
no TensorFlow, which only the driver needs, and no PySpark, which executors take from Spark itself. `--driver` builds
`dist/driver.tar.gz` from the driver's dependencies, for clusters that run the driver too (docs/deploy.md).

The interpreter is not in the archive: `bin/python` links to the one this runs on. Run it on a machine whose Python lies
where the cluster's does, or name that one with `--host-python`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import venv_pack

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
UNUSED = ("*/tests/*", "*/pyarrow/include/*")
"""Half of the files and a sixth of the bytes, which nothing imports."""


@dataclass(frozen=True)
class Environment:
    """An archive to build; `shared` are dependencies that the machine brings itself."""

    name: str
    requirements: Path
    shared: tuple[str, ...] = ()

    @property
    def archive(self) -> Path:
        """The archive."""
        return DIST / f"{self.name}.tar.gz"

    @property
    def record(self) -> Path:
        """What the archive was made of."""
        return DIST / f"{self.name}.json"


EXECUTORS = Environment("executors", ROOT / "requirements/executor.txt")
DRIVER = Environment("driver", ROOT / "requirements/run.txt", shared=("pyspark", "py4j"))


def main() -> int:
    """Build what has changed; say what there is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--driver", action="store_true", help="build the driver's archive instead of the executors'")
    parser.add_argument("--host-python", type=Path, help="Python on the cluster's hosts, such as /usr/bin/python3.11")
    options = parser.parse_args()
    environment = DRIVER if options.driver else EXECUTORS
    is_new = build(environment, options.host_python)
    size = environment.archive.stat().st_size / 2**20
    print(f"{environment.archive.relative_to(ROOT)}: {size:,.0f} MB, {'built' if is_new else 'unchanged'}")
    return 0


def build(environment: Environment, host_python: Path | None = None) -> bool:
    """Build the wheel and the archive, unless both were built from the same inputs."""
    inputs = digest(environment, host_python)
    if recorded_inputs(environment) == inputs:
        return False
    DIST.mkdir(exist_ok=True)
    environment.record.unlink(missing_ok=True)
    wheel = build_wheel()
    with tempfile.TemporaryDirectory(prefix="recsys-spark-package-") as folder:
        make_environment(Path(folder) / "environment", environment, wheel, host_python)
        pack(Path(folder) / "environment", environment.archive)
    environment.record.write_text(json.dumps({"inputs": inputs, "wheel": wheel.name}) + "\n")
    return True


def recorded_inputs(environment: Environment) -> str | None:
    """The digest of the inputs of what lies in `dist`; None when something is missing there."""
    if not (environment.record.is_file() and environment.archive.is_file()):
        return None
    record = json.loads(environment.record.read_text())
    return str(record["inputs"]) if (DIST / record["wheel"]).is_file() else None


def digest(environment: Environment, host_python: Path | None) -> str:
    """SHA-256 of all that shapes the archive: sources, locks, this file, the interpreter."""
    found = hashlib.sha256(f"{sys.version}|{sysconfig.get_platform()}|{sys.base_prefix}|{host_python}".encode())
    for path in sorted(sources(environment)):
        content = path.read_bytes()
        found.update(f"{path.relative_to(ROOT)}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()


def sources(environment: Environment) -> Iterator[Path]:
    """The files that the wheel and the environment are made of."""
    yield from (Path(__file__), environment.requirements)
    yield from (ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))
    for package in ("recsys_spark", "jobs"):
        files = (path for path in (ROOT / package).rglob("*") if path.is_file())
        yield from (path for path in files if "__pycache__" not in path.parts)


def build_wheel() -> Path:
    """The wheel in `dist`, in place of an older one."""
    for older in DIST.glob("recsys_spark-*.whl"):
        older.unlink()
    run(*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", DIST, ROOT)
    return next(DIST.glob("recsys_spark-*.whl"))


def make_environment(folder: Path, environment: Environment, wheel: Path, host_python: Path | None) -> None:
    """A virtual environment without pip: the locked dependencies, then the wheel."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    into = (*PIP, "--python", folder / "bin/python")
    run(*into, "install", "--quiet", "--require-hashes", "--requirement", environment.requirements)
    if environment.shared:
        run(*into, "uninstall", "--quiet", "--yes", *environment.shared)
    run(*into, "install", "--quiet", "--no-deps", "--no-index", wheel)
    if host_python is not None:
        link_to(folder, host_python)


def link_to(folder: Path, host_python: Path) -> None:
    """Let the environment run on another interpreter, which need not be here."""
    link = next(path for path in (folder / "bin").iterdir() if path.is_symlink() and path.readlink().is_absolute())
    link.unlink()
    link.symlink_to(host_python)
    settings = folder / "pyvenv.cfg"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(("home", "executable"))]
    settings.write_text("\n".join([f"home = {host_python.parent}", f"executable = {host_python}", *lines]) + "\n")


def pack(folder: Path, archive: Path) -> None:
    """Write the archive whole or not at all."""
    partial = archive.with_name(f"partial-{archive.name}")
    filters = [("exclude", pattern) for pattern in UNUSED]
    venv_pack.pack(prefix=str(folder), output=str(partial), force=True, filters=filters)
    partial.chmod(0o644)  # venv-pack leaves it to its owner alone
    partial.replace(archive)


def run(*command: str | Path) -> None:
    """Run a command; its failure ends this one."""
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    sys.exit(main())
