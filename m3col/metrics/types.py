"""Types of arrays that all metrics share."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Labels = NDArray[np.int64]
