"""Removes conjunctions from the rows of a batch, several tables at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rules_engine.targets.columns.arrays import Codes
from rules_engine.targets.columns.codes import Words64

#: Up to so many words per mask, working word by word is faster than row by row.
_FEW_WORDS = 64

#: The number of different codes of one byte.
_BYTE = 256


@dataclass(frozen=True, eq=False, slots=True)
class Narrowing:
    """Removes the conjunctions that are excluded by the values in some tables.

    Attributes
    ----------
    mentions
        the conjunctions that depend on the tables.
    masks, codes
        lines of allowed conjunctions, and for each row the number of its line.
    """

    mentions: npt.NDArray[np.uint64]
    masks: Words64
    codes: Codes

    def and_also(self, other: Narrowing) -> Narrowing | None:
        """Combine two into one, with a line for each pair of lines; None if a byte cannot number the pairs."""
        lines, others = len(self.masks), len(other.masks)
        if lines * others > _BYTE or self.codes.dtype != np.uint8 or other.codes.dtype != np.uint8:
            return None
        masks = (self.masks[:, None, :] & other.masks[None, :, :]).reshape(lines * others, -1)
        codes = self.codes * np.uint8(others % _BYTE) + other.codes  # of 256 lines only beside a single one, number 0
        return Narrowing(self.mentions | other.mentions, np.asfortranarray(masks), codes)

    def narrow(self, alive: Words64) -> None:
        codes = self.codes.astype(np.intp, copy=False)  # once for all words
        if alive.shape[1] > _FEW_WORDS:
            alive &= self.masks[codes]
            return
        for word in np.flatnonzero(self.mentions):
            alive[:, word] &= self.masks[:, word].take(codes)
