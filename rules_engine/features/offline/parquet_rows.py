"""Name the columns and row numbers that the ways of reading Parquet files share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The column with the place of a user among the other users who were given.
PLACE = "@"


@dataclass(frozen=True, eq=False, slots=True)
class NewestRows:
    """Mark the rows of a file that are their entities' newest.

    Attributes
    ----------
    rows
        for each row whether it is.
    places
        if there are others: for each row the place of its user among them, or -1.
    without_row
        the places of the others who have no row.
    """

    rows: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int32] | None = None
    without_row: npt.NDArray[np.int64] | None = None
