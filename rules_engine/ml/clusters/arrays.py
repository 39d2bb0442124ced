"""Numbers as JSON: short lists as lists, for people to read; long ones as the bytes of their doubles, in base64.

Both come back bit by bit as they were, missing numbers too.

>>> decode(encode(np.array([[0.1, 2.0]]))).tolist()
[[0.1, 2.0]]
>>> encode(np.array([0.5, np.nan]))
{'shape': [2], 'float64': 'AAAAAAAA4D8AAAAAAAD4fw=='}
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Positions = NDArray[np.int64]

#: So many numbers are written as a list; nobody reads more.
_READABLE = 400


def encode(values: Matrix | Positions) -> Any:
    """Return numbers as data for JSON."""
    if values.dtype.kind == "i":
        values = values.astype(np.float64)  # positions and counts are far below 2**53
    values = np.ascontiguousarray(values, dtype="<f8")
    if values.size <= _READABLE and np.isfinite(values).all():
        return values.tolist()
    return {"shape": list(values.shape), "float64": base64.b64encode(values.tobytes()).decode()}


def decode(content: Any) -> Matrix:
    """Return the numbers that :func:`encode` was given.

    Raises
    ------
    ValueError
        if the content holds no numbers.
    """
    if isinstance(content, dict):
        raw = np.frombuffer(base64.b64decode(content["float64"], validate=True), dtype="<f8")
        return raw.reshape([int(length) for length in content["shape"]]).astype(np.float64)
    return np.array(content, dtype=np.float64)


def finite(content: Any, dimensions: int) -> Matrix:
    """Decode numbers, and refuse missing and infinite ones, and arrays of other dimensions.

    Raises
    ------
    ValueError
        if a number is missing or infinite, or the dimensions are others.
    """
    values = decode(content)
    if values.ndim != dimensions or not np.isfinite(values).all():
        raise ValueError("its numbers make no sense")
    return values


class EqualByContent:
    """Compares records that hold arrays by their plain data, as arrays have no single truth of equality."""

    __slots__ = ()

    def to_plain(self) -> dict[str, Any]:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.to_plain() == other.to_plain()

    def __hash__(self) -> int:
        return hash(type(self).__name__)
