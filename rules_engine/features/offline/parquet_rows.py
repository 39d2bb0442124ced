"""What both ways to read Parquet files on this machine speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: The column with the place of a user among the other users who were given.
PLACE = "@"


def row_instant(view: str) -> str:
    """The name of the column that holds the instant of a view's row.

    >>> row_instant("rfm")
    '@rfm'
    """
    return f"@{view}"


@dataclass(frozen=True, eq=False, slots=True)
class Newest:
    """Which rows of a file are their users' newest.

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


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """A view's columns as its source names them; ``features`` by ``"view:name"``."""

    view: str
    key: str
    timestamp: str
    created: str | None
    features: Mapping[str, str]
