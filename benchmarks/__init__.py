"""What the project claims of its speed, measured: one file a claim, against the limit and against other libraries.

`make bench` runs them all, `python -m benchmarks.NAME --help` one.
"""

import os

# Some machines set them for the sake of older libraries, and NumPy reads them when it is loaded: they would slow down
# the project, its peers and the limit alike, and none of them runs so elsewhere.
for _variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(_variable, None)
