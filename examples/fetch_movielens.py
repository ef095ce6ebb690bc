"""Gets MovieLens-100K out of the recbole wheel into a cache folder: the package ships it as an example.

The data set is GroupLens Research's, for research use; see https://grouplens.org/datasets/movielens/100k/.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CACHE = Path("~/.cache/recsys_spark/ml-100k").expanduser()
REQUIREMENT = "recbole==1.2.1 --hash=sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
MEMBERS = "recbole/dataset_example/ml-100k/"
FILES = {"ml-100k.inter": 1_979_230, "ml-100k.item": 66_632, "ml-100k.user": 22_697}


def main() -> int:
    """Download, check and unpack, unless it is there."""
    if is_complete():
        return 0
    print(f"Getting MovieLens-100K out of the wheel {REQUIREMENT.split()[0]} into {CACHE}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = download(Path(folder))
        CACHE.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                # Written beside and moved, so that an interrupted run leaves no half file behind.
                partial = CACHE / f"{name}.partial"
                partial.write_bytes(archive.read(MEMBERS + name))
                partial.replace(CACHE / name)
    if not is_complete():
        print(f"{CACHE} does not hold the files expected: {', '.join(FILES)}", file=sys.stderr)
        return 1
    return 0


def download(folder: Path) -> Path:
    """The wheel, its hash checked by pip."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--require-hashes", "--dest", str(folder), "--requirement", str(requirements)], check=True)
    return next(folder.glob("recbole-*.whl"))


def is_complete() -> bool:
    """Whether all files are there in full."""
    return all((CACHE / name).is_file() and (CACHE / name).stat().st_size == size for name, size in FILES.items())


if __name__ == "__main__":
    sys.exit(main())
