"""Say where in its source a feature view's columns lie. Loads nothing heavy: requests' commands read it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def row_instant(view: str) -> str:
    """Return the name of the column that holds the instant of a view's row.

    >>> row_instant("rfm")
    '@rfm'
    """
    return f"@{view}"


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """The columns of a feature view, as its source names them.

    Attributes
    ----------
    view
        the view's name.
    key, timestamp, created
        the columns of the entity keys, the event timestamps and the created timestamps; not every source has the last.
    features
        by ``"view:name"`` the column of each feature that is read.
    """

    view: str
    key: str
    timestamp: str
    created: str | None
    features: Mapping[str, str]
