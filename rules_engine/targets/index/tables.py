"""Lookup tables: from the value of a slot to the mask of the conjunctions that allow it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import xor

from rules_engine.rules.types import Value
from rules_engine.rules.undecided import Undecided
from rules_engine.targets.index import lines
from rules_engine.targets.index.domains import Cut, Domain, Lists, Ranges
from rules_engine.targets.index.layout import Layout, mask_of
from rules_engine.targets.index.slots import Reading, Slot

#: The most bytes of masks that one table keeps; beyond that some masks are computed when they are looked up.
MAX_TABLE_BYTES = 16 << 20

#: The domains of a slot, each with the bit of the conjunction that it belongs to.
Mentions = list[tuple[int, Domain]]


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """The base of all tables.

    Attributes
    ----------
    mentions
        the conjunctions that restrict the slot.
    missing
        the mask for a missing value.
    read
        ``(raw value, now) ->`` the value to look up, None if missing.
    """

    slot: Slot
    mentions: int
    missing: int
    read: Callable[[Value, int], Value]

    def mask(self, raw: Value, now: int) -> int:
        """Return the conjunctions that allow a raw value."""
        if raw.__class__ is Undecided:
            return self.undecided(raw)
        value = self.read(raw, now)
        return self.missing if value is None else self.present(value)

    def narrow(self, alive: int, raw: Value, now: int) -> int:
        """Return the conjunctions among ``alive`` that allow a raw value."""
        return alive & self.mask(raw, now)

    def present(self, value: Value) -> int:
        """Return the mask for a value as it was read."""
        raise NotImplementedError

    def undecided(self, _value: Undecided) -> int:
        """Return the conjunctions that do not depend on the value. The others are not true, because it is unknown."""
        return ~self.mentions


@dataclass(frozen=True, eq=False, slots=True)
class Steps(Table):
    """Values on a line: between two cuts the mask is constant.

    Attributes
    ----------
    cuts
        ascending; ``cells[i]`` is the mask of values at or above the first ``i`` cuts and below the others.
    edges
        the cuts as the least value above each, so that one bisection finds the cell.
    float_edges
        the same for floats, on the line of numbers.
    """

    cuts: tuple[Cut, ...]
    cells: Sequence[int]
    edges: list[Value] = field(repr=False)
    float_edges: list[float] = field(repr=False)

    def cell(self, value: Value) -> int:
        """Return the cell of a value."""
        return bisect_right(self.float_edges if isinstance(value, float) else self.edges, value)

    def present(self, value: Value) -> int:
        return self.cells[self.cell(value)]

    def undecided(self, value: Undecided) -> int:
        if value.at_least is None or self.slot.reading is not Reading.PLAIN:
            return ~self.mentions
        mask = -1
        for cell in range(self.cell(value.at_least), len(self.cells)):  # conjunctions that allow every count from there
            mask &= self.cells[cell]
        return mask


@dataclass(frozen=True, eq=False, slots=True)
class Words(Table):
    """Values that are only compared for equality: ``other`` is the mask of all that are not named."""

    words: dict[Value, int]
    other: int

    def present(self, value: Value) -> int:
        return self.words.get(value, self.other)


@dataclass(frozen=True, eq=False, slots=True)
class Plane:
    """At most one required set of elements for each conjunction; ``free`` are the conjunctions without one here."""

    elements: dict[Value, int]
    free: int


@dataclass(frozen=True, eq=False, slots=True)
class Elements(Table):
    """Lists, looked up element by element.

    Attributes
    ----------
    allowed
        the conjunctions that allow any list at all.
    forbidden
        for an element, the conjunctions that do not allow it.
    planes
        for an element, the conjunctions that require it or another; a list has to satisfy all planes.
    """

    allowed: int
    forbidden: dict[Value, int]
    planes: tuple[Plane, ...]

    def present(self, value: Sequence[Value]) -> int:
        mask = self.allowed
        forbidden = self.forbidden
        for element in value:
            if element in forbidden:
                mask &= ~forbidden[element]
        for plane in self.planes:
            satisfied, elements = plane.free, plane.elements
            for element in value:
                if element in elements:
                    satisfied |= elements[element]
            mask &= satisfied
        return mask


def build_tables(layout: Layout) -> list[Table]:
    """Return the table of each slot that a conjunction mentions, by the slots' numbers."""
    mentions: dict[Slot, Mentions] = {}
    for bit, conjunction in enumerate(layout.conjunctions):
        for slot, domain in conjunction.domains.items():
            mentions.setdefault(slot, []).append((bit, domain))
    ordered = sorted(mentions.items(), key=lambda item: item[0].number)
    return [_build(slot, on_slot, layout.everything) for slot, on_slot in ordered]


def _build(slot: Slot, mentions: Mentions, everything: int) -> Table:
    mentioned = mask_of(bit for bit, _ in mentions)
    free = everything ^ mentioned
    missing = free | mask_of(bit for bit, domain in mentions if domain.missing)
    shared = (slot, mentioned, missing, slot.reader())
    if isinstance(mentions[0][1], Lists):
        return _elements(shared, [(bit, lists) for bit, lists in mentions if isinstance(lists, Lists)], everything)
    ranges_by_bit = [(bit, ranges) for bit, ranges in mentions if isinstance(ranges, Ranges)]
    return _steps(shared, ranges_by_bit, free, everything.bit_length())


Shared = tuple[Slot, int, int, Callable[[Value, int], Value]]


# --- values on a line -----------------------------------------------------------------------------------------------


def _steps(shared: Shared, mentions: list[tuple[int, Ranges]], free: int, width: int) -> Table:
    slot = shared[0]
    lowest = free | mask_of(bit for bit, ranges in mentions if ranges.low)
    switches: dict[Cut, list[int]] = {}
    for bit, ranges in mentions:
        for cut in ranges.cuts:
            switches.setdefault(cut, []).append(bit)
    cuts = tuple(sorted(switches))
    changes = [switches[cut] for cut in cuts]
    if len(cuts) * width // 8 > MAX_TABLE_BYTES:
        cells: Sequence[int] = SparseCells(lowest, changes, width)
    else:
        cells = list(accumulate(map(mask_of, changes), xor, initial=lowest))
        if slot.line is lines.STRINGS:
            words = _as_words(cuts, cells)
            if words is not None:
                return Words(*shared, words, cells[-1])
    return Steps(*shared, cuts, cells, *_edges(slot, cuts))


def _edges(slot: Slot, cuts: tuple[Cut, ...]) -> tuple[list[Value], list[float]]:
    if slot.line is lines.NUMBERS:
        return [lines.first_integer(cut) for cut in cuts], [lines.first_float(cut) for cut in cuts]
    edges = [cut[0] for cut in cuts]
    return edges, [float(edge) for edge in edges] if slot.line is lines.COUNTS else []


def _as_words(cuts: tuple[Cut, ...], cells: Sequence[int]) -> dict[Value, int] | None:
    """Return the masks of single strings, if all other strings have the mask of the last cell; None if not."""
    words: dict[Value, int] = {}
    starts = ["", *(cut[0] for cut in cuts)]
    for here, following, cell in zip(starts, [*starts[1:], None], cells, strict=True):
        if following == here + "\0":
            words[here] = cell
        elif cell != cells[-1]:
            return None
    return words


class SparseCells(Sequence[int]):
    """Cells of which only some, at a fixed distance, are stored; those between are computed from the changes.

    >>> cells = SparseCells(0b0, [[0], [1], [0]], width=2, most_bytes=0)
    >>> [bin(cell) for cell in cells]
    ['0b0', '0b1', '0b11', '0b10']
    """

    def __init__(self, lowest: int, changes: list[list[int]], width: int, most_bytes: int = MAX_TABLE_BYTES) -> None:
        self._changes = changes
        stored = max(1, most_bytes // (width // 8 + 1))
        self._stride = len(changes) // stored + 1
        self._stored = [lowest]
        for start in range(self._stride, len(changes) + 1, self._stride):
            lowest ^= self._between(start - self._stride, start)
            self._stored.append(lowest)

    def _between(self, start: int, end: int) -> int:
        # A bit may switch twice, so the changes are combined one by one.
        change = 0
        for bits in self._changes[start:end]:
            change ^= mask_of(bits)
        return change

    def __len__(self) -> int:
        return len(self._changes) + 1

    def __getitem__(self, cell: int) -> int:  # type: ignore[override]
        if cell >= len(self):
            raise IndexError(cell)
        place, rest = divmod(cell, self._stride)
        return self._stored[place] ^ self._between(cell - rest, cell)


# --- lists ----------------------------------------------------------------------------------------------------------


def _elements(shared: Shared, mentions: list[tuple[int, Lists]], everything: int) -> Table:
    allowed = everything ^ mask_of(bit for bit, lists in mentions if lists.nothing_present)
    forbidden = _masks((element, bit) for bit, lists in mentions for element in lists.none)
    return Elements(*shared, allowed, forbidden, tuple(_planes(mentions, everything)))


def _planes(mentions: list[tuple[int, Lists]], everything: int) -> Iterator[Plane]:
    waiting = [(bit, list(lists.anys)) for bit, lists in mentions if lists.anys]
    while waiting:
        taken = [(bit, choices.pop()) for bit, choices in waiting]
        elements = _masks((element, bit) for bit, choices in taken for element in choices)
        yield Plane(elements, everything ^ mask_of(bit for bit, _ in taken))
        waiting = [(bit, choices) for bit, choices in waiting if choices]


def _masks(pairs: Iterator[tuple[Value, int]]) -> dict[Value, int]:
    bits: dict[Value, list[int]] = {}
    for element, bit in pairs:
        bits.setdefault(element, []).append(bit)
    return {element: mask_of(positions) for element, positions in bits.items()}
