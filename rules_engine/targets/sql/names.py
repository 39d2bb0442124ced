"""Chooses names for the query: readable, unique, and different from those of segments and input tables."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9_]+")
_LONGEST = 40


class UniqueNames:
    """Gives names that differ from each other, and from those taken, in more than case.

    >>> names = UniqueNames(["Features"])
    >>> names.unique("features"), names.unique("features"), names.numbered("count"), names.numbered("count")
    ('features_2', 'features_3', 'count_1', 'count_2')
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {name.lower() for name in taken}

    def unique(self, proposal: str) -> str:
        """Return the proposal as an identifier that needs no quotes, with a number appended if it is taken."""
        name = _NOT_IN_A_NAME.sub("_", proposal.lower()).strip("_")[:_LONGEST] or "x"
        name = f"_{name}" if name[0].isdigit() else name
        return self._first_free(name, name, 2)

    def numbered(self, stem: str) -> str:
        """Return the next free name of ``stem_1``, ``stem_2`` and so on."""
        return self._first_free(f"{stem}_1", stem, 2)

    def _first_free(self, name: str, stem: str, number: int) -> str:
        while name in self._taken:
            name = f"{stem}_{number}"
            number += 1
        self._taken.add(name)
        return name
