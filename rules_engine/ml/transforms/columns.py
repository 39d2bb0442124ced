"""Transforms of one column of numbers, by name: what `scale:` in clusters.yaml can take before values are compared.

Ours is ``log``. Other packages bring theirs as entry points; an incomplete one is refused when they are loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rules_engine.extensions import Extensions

Column = NDArray[np.float64]


class Transform(ABC):
    """Gives a column another shape, and back. A class keeps no state: what it learns is plain numbers.

    The first line of its docstring says what it is for; editors show it.

    Attributes
    ----------
    name : str
        what ``scale:`` says.
    """

    name: ClassVar[str]

    def learn(self, column: Column) -> dict[str, float]:  # noqa: ARG002  # most learn nothing
        """Return what is to be known to apply it, as plain numbers that are stored with the clusters."""
        return {}

    def defined(self, column: Column) -> NDArray[np.bool_]:
        """Return for each value whether it can be transformed."""
        return np.ones(len(column), dtype=bool)

    @abstractmethod
    def apply(self, column: Column, learned: Mapping[str, float]) -> Column:
        """Return the transformed column; missing values, which are NaN, stay missing."""

    @abstractmethod
    def invert(self, column: Column, learned: Mapping[str, float]) -> Column:
        """Return the column that was transformed."""


class Log(Transform):
    """log(1 + x), for skewed counts and money."""

    name = "log"

    def defined(self, column: Column) -> NDArray[np.bool_]:
        """Return for each value whether it is above -1."""
        return ~(column <= -1)

    def apply(self, column: Column, learned: Mapping[str, float]) -> Column:  # noqa: ARG002
        """Return log(1 + x)."""
        logarithm: Column = np.log1p(column)
        return logarithm

    def invert(self, column: Column, learned: Mapping[str, float]) -> Column:  # noqa: ARG002
        """Return exp(x) - 1."""
        inverted: Column = np.expm1(column)
        return inverted


#: What other packages bring: the name of an entry point is the transform's, the object a subclass of Transform.
BROUGHT = Extensions("feast_segments.transforms", "transform", "docs/adding_an_algorithm.md")

#: Scales that are no transform.
_SCALES = ("standard", "robust", "min_max")


@cache
def transforms() -> Mapping[str, Transform]:
    """Return every transform by name, ours first.

    Raises
    ------
    ProjectError
        if a package brings one that cannot be imported, is incomplete, or has a name that is taken.

    >>> list(transforms())[:1]
    ['log']
    """
    by_name: dict[str, Transform] = {Log.name: Log()}
    for entry, brought in BROUGHT.load([*by_name, *_SCALES]):
        if problem := _lacking(brought, entry.name):
            raise BROUGHT.unusable(entry, f"`{entry.value}` {problem}")
        by_name[entry.name] = brought()
    return by_name


def _lacking(candidate: Any, name: str) -> str:
    """Return what a class lacks to be the transform of that name; empty if it is complete."""
    if not (isinstance(candidate, type) and issubclass(candidate, Transform)):
        return "is no subclass of Transform"
    if getattr(candidate, "name", None) != name:
        return f"has no name `{name}`"
    if not candidate.__doc__:
        return "has no docstring"
    if candidate.__abstractmethods__:
        return f"has no {' and no '.join(f'`{method}`' for method in sorted(candidate.__abstractmethods__))}"
    return ""
