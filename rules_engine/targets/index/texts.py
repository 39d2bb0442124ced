"""String features that rules read in more ways than equality: parts, patterns, without case, from the end.

Matching a string with patterns is costly, and the same strings come often (pages, campaigns, cities). So the combined
mask of all tables of such a feature is remembered for each string. If a feature has very many patterns, nothing is
remembered, and a string is matched only with the patterns that can still matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.types import STRING, Value
from rules_engine.targets.index.layout import set_bits
from rules_engine.targets.index.slots import Reading, Slot
from rules_engine.targets.index.tables import Table, Words

#: The most tests of one feature that are all done on a string that is not remembered.
MAX_TESTS = 64

#: The most strings that a feature remembers, and the most bytes of masks that it spends on them.
_MAX_STRINGS = 4096
_MAX_BYTES = 4 << 20


class TextMasks:
    """The combined mask of a string feature's tables, remembered for each string in ``seen``.

    A full memory is emptied. That suffices for the few strings that come often, and needs no lock.
    """

    __slots__ = ("_limit", "_tables", "mentions", "seen")

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        self.mentions = union(table.mentions for table in tables)
        self.seen: dict[str, int] = {}
        width = max(table.missing.bit_length() for table in tables)
        self._limit = min(_MAX_STRINGS, _MAX_BYTES // (width // 8 + 1))

    def mask(self, raw: Value) -> int:
        """Return the conjunctions that allow a raw value that is not in ``seen``; remember it if it is a string."""
        mask = -1
        for table in self._tables:
            mask &= table.mask(raw, 0)
        if raw.__class__ is str:
            if len(self.seen) >= self._limit:
                self.seen.clear()
            self.seen[raw] = mask
        return mask


class ManyTests:
    """Very many tests of one feature, of which only those are done that a conjunction needs that is still alive."""

    __slots__ = ("_by_bit", "mentions", "slot")

    def __init__(self, tables: Sequence[Table]) -> None:
        self._by_bit: dict[int, list[Table]] = {}
        self.mentions = union(table.mentions for table in tables)
        self.slot: Slot = tables[0].slot
        for table in tables:
            for bit in set_bits(table.mentions):
                self._by_bit.setdefault(bit, []).append(table)

    def narrow(self, alive: int, raw: Value, now: int) -> int:
        """Return the conjunctions among ``alive`` that allow a raw value."""
        done = set()
        for bit in set_bits(alive & self.mentions):
            for table in self._by_bit[bit]:
                if alive >> bit & 1 and table not in done:
                    done.add(table)
                    alive &= table.mask(raw, now)
        return alive


def union(masks: Iterable[int]) -> int:
    """Return the bits of any of the masks."""
    return reduce(or_, masks, 0)


@dataclass(frozen=True, slots=True)
class Strings:
    """The string features of a program, by key, shared by all its plans.

    Attributes
    ----------
    words
        features that are only compared for equality.
    texts
        features that are read in more ways.
    many
        tests that are too many to be done on every string.
    """

    words: tuple[tuple[str, Words], ...]
    texts: tuple[tuple[str, TextMasks], ...]
    many: tuple[ManyTests, ...]


def group_strings(tables: Iterable[Table]) -> Strings:
    """Return the tables of string features, grouped by feature, without those that depend on the clock."""
    by_feature: dict[str, list[Table]] = {}
    for table in tables:
        slot = table.slot
        if isinstance(slot.source, FeatureRef) and slot.type == STRING and not slot.reads_clock:
            by_feature.setdefault(slot.source.key, []).append(table)
    words: list[tuple[str, Words]] = []
    texts: list[tuple[str, TextMasks]] = []
    many: list[ManyTests] = []
    for key, of_feature in by_feature.items():
        tests = [table for table in of_feature if table.slot.reading is Reading.TEST]
        too_many = len(tests) > MAX_TESTS
        if too_many:
            many.append(ManyTests(tests))
        remembered = [table for table in of_feature if not (too_many and table in tests)]
        if len(remembered) == 1 and isinstance(remembered[0], Words) and remembered[0].slot.reading is Reading.PLAIN:
            words.append((key, remembered[0]))
        elif remembered:
            texts.append((key, TextMasks(remembered)))
    return Strings(tuple(words), tuple(texts), tuple(many))
