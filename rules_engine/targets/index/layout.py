"""Assigns a bit to each conjunction, and turns bits into names of segments.

Segments are sorted by how many conjunctions they have, most first. Layer 0 holds the first conjunction of every segment
in that order, layer 1 the second of those that have one, and so on: one shift and one "or" per layer fold conjunctions
into segments. The conjunctions of parts come after all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from struct import unpack

from rules_engine.targets.index.normal_form import Conjunction, NormalForm

#: Up to this width, or so many segments, repeatedly taking the highest bit of the whole mask is faster than going
#: through words of 64 bits.
_NARROW, _FEW = 512, 64

#: The highest bit of a word, by its length.
_LAST_BIT = (0, *(1 << bit for bit in range(64)))


def mask_of(bits: Iterable[int]) -> int:
    """Return the integer with these bits set.

    >>> bin(mask_of([0, 3]))
    '0b1001'
    """
    data = bytearray()
    for bit in bits:
        position = bit >> 3
        if position >= len(data):
            data.extend(bytes(position + 1 - len(data)))
        data[position] |= 1 << (bit & 7)
    return int.from_bytes(data, "little")


@dataclass(frozen=True, slots=True)
class PartBits:
    """The bits of a part's own conjunctions, and the bits of all conjunctions that do not depend on the part."""

    own: int
    without: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The meaning of the bits of a mask.

    Attributes
    ----------
    names
        the segments by their bit after folding, without those that can never be true.
    layers
        the offset of each layer, and a mask of its width.
    parts
        the parts, in the order in which they are decided.
    offsets
        for each word of 64 bits the position before its first bit.
    width
        the number of bits before folding.
    """

    names: tuple[str, ...]
    layers: tuple[tuple[int, int], ...]
    conjunctions: tuple[Conjunction, ...]
    parts: tuple[PartBits, ...]
    offsets: tuple[int, ...]

    @property
    def width(self) -> int:
        return len(self.conjunctions)

    @property
    def everything(self) -> int:
        return (1 << self.width) - 1

    def fold(self, alive: int) -> int:
        """Return the segments of which a conjunction is alive."""
        for part in self.parts:
            if not alive & part.own:
                alive &= part.without
        segments = 0
        for offset, ones in self.layers:
            segments |= alive >> offset & ones
        return segments

    def names_of(self, segments: int) -> frozenset[str]:
        """Return the names of a folded mask."""
        names, members = self.names, []
        if len(names) <= _NARROW or segments.bit_count() <= _FEW:
            while segments:
                highest = segments.bit_length() - 1
                members.append(names[highest])
                segments ^= 1 << highest
            return frozenset(members)
        size = len(self.offsets)
        words = unpack(f"<{size}Q", segments.to_bytes(size * 8, "little"))
        for offset, here in zip(compress(self.offsets, words), filter(None, words), strict=True):
            word = here
            while word:
                length = word.bit_length()
                members.append(names[offset + length])
                word ^= _LAST_BIT[length]
        return frozenset(members)

    def bits_of(self, segments: Iterable[str]) -> int:
        """Return the bits that decide these segments: their conjunctions, and those of the parts that they need."""
        positions = {name: position for position, name in enumerate(self.names)}
        selected = {positions[name] for name in segments if name in positions}
        bits = [
            offset + position for offset, ones in self.layers for position in selected if position < ones.bit_length()
        ]
        alive, visited = mask_of(bits), set()
        waiting = [part for bit in bits for part in self.conjunctions[bit].parts]
        while waiting:
            part = waiting.pop()
            if part not in visited:
                visited.add(part)
                alive |= self.parts[part].own
                waiting += [inner for bit in set_bits(self.parts[part].own) for inner in self.conjunctions[bit].parts]
        return alive


def set_bits(mask: int) -> Iterator[int]:
    """Yield the bits that are set, ascending.

    >>> list(set_bits(0b1001))
    [0, 3]
    """
    digits = f"{mask:b}"[::-1]
    position = digits.find("1")
    while position >= 0:
        yield position
        position = digits.find("1", position + 1)


def lay_out(form: NormalForm) -> Layout:
    """Give every conjunction its bit.

    >>> from rules_engine.targets.index.normal_form import ALWAYS
    >>> layout = lay_out(NormalForm({"everybody": [ALWAYS], "nobody": []}, (), ()))
    >>> layout.names_of(layout.fold(layout.everything))
    frozenset({'everybody'})
    """
    possible = [name for name, alternatives in form.segments.items() if alternatives]
    names = sorted(possible, key=lambda name: -len(form.segments[name]))
    conjunctions: list[Conjunction] = []
    layers = []
    for layer in range(len(form.segments[names[0]]) if names else 0):
        members = [form.segments[name][layer] for name in names if len(form.segments[name]) > layer]
        layers.append((len(conjunctions), (1 << len(members)) - 1))
        conjunctions += members
    own = []
    for alternatives in form.parts:
        own.append(range(len(conjunctions), len(conjunctions) + len(alternatives)))
        conjunctions += alternatives
    parts = _parts(conjunctions, own)
    return Layout(tuple(names), tuple(layers), tuple(conjunctions), parts, tuple(range(-1, len(names), 64)))


def _parts(conjunctions: list[Conjunction], own: list[range]) -> tuple[PartBits, ...]:
    askers: list[list[int]] = [[] for _ in own]
    for bit, conjunction in enumerate(conjunctions):
        for part in conjunction.parts:
            askers[part].append(bit)
    everything = (1 << len(conjunctions)) - 1
    return tuple(
        PartBits(mask_of(bits), everything ^ mask_of(asking)) for bits, asking in zip(own, askers, strict=True)
    )
