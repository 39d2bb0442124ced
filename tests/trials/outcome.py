"""Hold what a trial compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trial:
    """Hold what was compared, and what differed.

    Attributes
    ----------
    compared
        how many answers, by the pair that was compared.
    undecided
        how many answers of lookups were unknown because more events came than are kept.
    differences
        a line for each answer that differed.
    """

    compared: dict[str, int] = field(default_factory=dict)
    undecided: int = 0
    differences: list[str] = field(default_factory=list)

    def compare(self, pair: str, where: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
        """Compare two sets of answers by segment."""
        self.compared[pair] = self.compared.get(pair, 0) + len(first)
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                self.differences.append(f"{pair}: {where}, {name}: {first.get(name)} and {second.get(name)}")
