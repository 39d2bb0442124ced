"""The knee of a curve."""

from __future__ import annotations

import numpy as np

from rules_engine.ml.clusters.arrays import Matrix


def knee(x: Matrix, y: Matrix) -> int:
    """Return where a curve bends most: the point farthest above, or below, the line between its ends.

    V. Satopää et al., "Finding a 'kneedle' in a haystack", ICDCS workshops 2011, without the smoothing.

    >>> knee(np.arange(2.0, 8.0), np.array([100.0, 40.0, 12.0, 9.0, 7.0, 6.0]))
    2
    """
    width, height = (x[-1] - x[0]) or 1.0, (y[0] - y[-1]) or 1.0
    return int(np.argmax(np.abs((y[0] - y) / height - (x - x[0]) / width)))
