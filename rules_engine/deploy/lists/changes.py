"""Says how lists differ from what was imported. It imports nothing heavy: plans that change nothing read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListChange:
    """Tell how a list differs from what was imported of it.

    Attributes
    ----------
    segment, file
        the segment, and the file that names its members.
    size
        how many there are.
    joins, leaves
        how many of them are new, and how many were on the list and are no longer.
    repeated
        how many rows of the file name somebody whom another row names.
    """

    segment: str
    file: str
    size: int
    joins: int
    leaves: int
    repeated: int = 0

    def __str__(self) -> str:
        twice = f", {self.repeated:,} given twice" if self.repeated else ""
        return f"{self.segment} ({self.size:,} in {self.file}: {self.joins:,} join, {self.leaves:,} leave{twice})"
