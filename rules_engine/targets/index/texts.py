"""Features that are strings and are looked at in more ways than equality: parts, patterns, without case, from the end.

Judging a string by patterns is dear, and the same strings come again and again (pages, campaigns, cities). So the mask
of all that is asked of such a feature is remembered per string. Where very many patterns are asked of one feature,
nothing is remembered, and a string is judged only by those that can still matter.
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

#: The most tests of one feature that are all done on a string that was not seen before.
MAX_TESTS = 64

#: The most strings that a feature remembers, and the most bytes of masks that it spends on them.
_MAX_STRINGS = 4096
_MAX_BYTES = 4 << 20


class TextMasks:
    """The mask of everything that is asked of one string feature, remembered per string in ``seen``.

    Forgetting all of a full memory is good enough for the few strings that come often, and needs no lock.
    """

    __slots__ = ("_limit", "_tables", "mentions", "seen")

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tuple(tables)
        self.mentions = union(table.mentions for table in tables)
        self.seen: dict[str, int] = {}
        width = max(table.missing.bit_length() for table in tables)
        self._limit = min(_MAX_STRINGS, _MAX_BYTES // (width // 8 + 1))

    def mask(self, raw: Value) -> int:
        """Return the conjunctions that allow a raw value that is not in ``seen``; a string is there from now on."""
        mask = -1
        for table in self._tables:
            mask &= table.mask(raw, 0)
        if raw.__class__ is str:
            if len(self.seen) >= self._limit:
                self.seen.clear()
            self.seen[raw] = mask
        return mask


class ManyTests:
    """Very many tests of one feature: only those are done that a conjunction asks for which is alive."""

    __slots__ = ("_by_bit", "mentions", "slot")

    def __init__(self, tables: Sequence[Table]) -> None:
        self._by_bit: dict[int, list[Table]] = {}
        self.mentions = union(table.mentions for table in tables)
        self.slot: Slot = tables[0].slot
        for table in tables:
            for bit in set_bits(table.mentions):
                self._by_bit.setdefault(bit, []).append(table)

    def narrow(self, alive: int, raw: Value, now: int) -> int:
        """Return what is left of the conjunctions that are alive."""
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
        those that are only compared for equality.
    texts
        those that are asked more.
    many
        tests that are too many to be done on every string.
    """

    words: tuple[tuple[str, Words], ...]
    texts: tuple[tuple[str, TextMasks], ...]
    many: tuple[ManyTests, ...]


def group_strings(tables: Iterable[Table]) -> Strings:
    """Return the tables of string features, grouped by feature; what reads the clock is left out."""
    by_feature: dict[str, list[Table]] = {}
    for table in tables:
        slot = table.slot
        if isinstance(slot.source, FeatureRef) and slot.type == STRING and not slot.reads_clock:
            by_feature.setdefault(slot.source.key, []).append(table)
    words: list[tuple[str, Words]] = []
    texts: list[tuple[str, TextMasks]] = []
    many: list[ManyTests] = []
    for key, found in by_feature.items():
        tests = [table for table in found if table.slot.reading is Reading.TEST]
        too_many = len(tests) > MAX_TESTS
        if too_many:
            many.append(ManyTests(tests))
        asked = [table for table in found if not (too_many and table in tests)]
        if len(asked) == 1 and isinstance(asked[0], Words) and asked[0].slot.reading is Reading.PLAIN:
            words.append((key, asked[0]))
        elif asked:
            texts.append((key, TextMasks(asked)))
    return Strings(tuple(words), tuple(texts), tuple(many))
