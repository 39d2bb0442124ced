"""Turns a column of values into codes: for each row, the number of the line of a table's masks that applies to it.

These are the tables that serve one entity, looked up with numpy and pyarrow instead of bisection and dictionaries.
Values that these cannot look up are looked up one by one, each distinct value once. Line 0 of the masks is always that
of a missing value: codes count from 1, in the narrowest type, and become 0 where the column is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.rules.nodes import Composite
from rules_engine.rules.types import Value
from rules_engine.targets.columns.arrays import (
    Codes,
    holds_kind,
    is_list,
    is_string,
    is_time,
    micros,
    null_flags,
    python_value,
    python_values,
    raw_values,
    to_numpy,
    zero_where_null,
)
from rules_engine.targets.index import lines
from rules_engine.targets.index.slots import Reading
from rules_engine.targets.index.tables import Elements, Steps, Table, Words

Words64 = npt.NDArray[np.uint64]

#: Up to so many edges, comparing all values with each is faster than bisecting for each value.
_FEW_EDGES = 32

#: More lines than any table has whose masks do not depend on the column.
_MANY_LINES = 1 << 62

#: Masks as lines of words, the first that of a missing value, and for each row the line that applies.
Lookup = tuple[Words64, Codes]


@dataclass(frozen=True, eq=False, slots=True)
class Coded:
    """A column of values of any types: the distinct values, and for each row the place of its value; 0 is missing."""

    values: tuple[Value, ...]
    codes: Codes

    @classmethod
    def of(cls, values: Iterable[Value]) -> Coded:
        """Return the column of some values; None is missing.

        >>> Coded.of([1, True, None, 1]).codes
        array([1, 2, 0, 1])
        """
        places: dict[tuple[type, Value], int] = {}
        codes = [0 if value is None else places.setdefault((type(value), value), len(places) + 1) for value in values]
        return cls(tuple(value for _, value in places), np.array(codes, dtype=np.intp))

    def slice(self, offset: int, length: int) -> Coded:
        return Coded(self.values, self.codes[offset : offset + length])

    def take(self, rows: pa.Array) -> Coded:
        return Coded(self.values, self.codes[rows.to_numpy(zero_copy_only=False)])

    def to_pylist(self) -> list[Value]:
        return [None if code == 0 else self.values[code - 1] for code in self.codes.tolist()]

    def look_up(self, table: Table, now: int, words: int) -> Lookup:
        """Return the masks of the values."""
        return stack([table.missing, *(table.mask(value, now) for value in self.values)], words), self.codes


#: The values of an event condition, row by row.
EventColumn = pa.Array | Coded


def to_words(mask: int, words: int) -> Words64:
    """Return a mask as 64-bit words, the lowest bits first.

    >>> to_words(1 << 64, 2)
    array([0, 1], dtype=uint64)
    """
    bits = mask & ((1 << 64 * words) - 1)
    return np.frombuffer(bits.to_bytes(8 * words, "little"), dtype="<u8").astype(np.uint64)


def stack(masks: Sequence[int], words: int) -> Words64:
    """Return masks as lines of words."""
    every, size = (1 << 64 * words) - 1, 8 * words
    as_bytes = b"".join([(mask & every).to_bytes(size, "little") for mask in masks])
    return np.asfortranarray(np.frombuffer(as_bytes, dtype="<u8").reshape(len(masks), words), dtype=np.uint64)


#: The dictionary of a column and its masks, by table.
DictionaryMasks = dict["ColumnTable", tuple[pa.Array, Words64]]


class ColumnTable:
    """A table with its masks as arrays."""

    def __init__(self, table: Table, words: int) -> None:
        self.table = table
        self.words = words
        self.mentions = to_words(table.mentions, words)
        masks = _static_masks(table)
        #: Whether every value is looked up with array operations only.
        self.is_cheap = (masks is not None or isinstance(table, Elements)) and not isinstance(
            table.slot.source, Composite
        )
        self._lines = None if masks is None else stack([table.missing, *masks], words)
        #: The number of lines of its masks; a large number if that depends on the column.
        self.lines = _MANY_LINES if self._lines is None else len(self._lines)
        self._word_set = _word_set(table) if isinstance(table, Words) else None

    def look_up(self, column: pa.Array, now: int, dictionaries: DictionaryMasks) -> Lookup:
        """Return the masks of a column's values; ``dictionaries`` keeps those of a dictionary from slice to slice."""
        if isinstance(self.table, Elements):
            return look_up_lists(self.table, column, self.words)
        if self._lines is not None:
            return self._lines, self._codes(column, now)
        is_coded = pa.types.is_dictionary(column.type)
        if is_coded and self in dictionaries and dictionaries[self][0].equals(column.dictionary):
            return dictionaries[self][1], _dictionary_codes(column)
        lookup = look_up_distinct(column, lambda raw: self.table.mask(raw, now), self.table.missing, self.words)
        if is_coded:
            dictionaries[self] = column.dictionary, lookup[0]
        return lookup

    def _codes(self, column: pa.Array, now: int) -> Codes:
        """Return the line of each row."""
        table = self.table
        if self._word_set is not None:
            return _word_codes(self._word_set, column)
        assert isinstance(table, Steps), table
        if table.slot.reading is Reading.AGE:
            return _age_codes(table, column, now)
        if table.slot.line is lines.TRUTH:
            return _flag_codes(table, column)
        return _number_codes(table, column) if table.slot.line else _presence_codes(table, column)


def _static_masks(table: Table) -> list[int] | None:
    """Return the masks of a table, except that of a missing value; None if they depend on the column."""
    slot = table.slot
    if slot.type is not None and slot.type.decimals is not None:
        return None
    if isinstance(table, Words) and slot.reading is Reading.PLAIN:
        return [*table.words.values(), table.other]
    is_vectorised = slot.line in (None, lines.TRUTH, lines.NUMBERS, lines.WHOLE, lines.COUNTS)
    if isinstance(table, Steps) and slot.reading in (Reading.PLAIN, Reading.AGE) and is_vectorised:
        return list(table.cells)
    return None


# --- strings --------------------------------------------------------------------------------------------------------


def _word_set(table: Words) -> pa.Array:
    # A lone surrogate has no UTF-8: no column holds it.
    return pa.array([word if _is_encodable(word) else None for word in table.words], pa.large_string())


def _is_encodable(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _word_codes(words: pa.Array, column: pa.Array) -> Codes:
    if not is_string(column.type):
        return _all_missing(column)
    if pa.types.is_dictionary(column.type):
        of_values = np.append(_word_codes(words, column.dictionary), 0).astype(_narrowest(len(words) + 1))
        return zero_where_null(of_values.take(raw_values(column.indices), mode="clip"), column)
    codes = pc.index_in(column, value_set=words.cast(column.type), skip_nulls=True)
    return zero_where_null(to_numpy(codes, len(words)) + 1, column)


def look_up_distinct(column: pa.Array, mask: Callable[[Value], int], missing: int, words: int) -> Lookup:
    """Look up each distinct value once, like the value of a single entity."""
    if pa.types.is_nested(column.type):
        masks = [mask(python_value(scalar)) for scalar in column]
        return stack([missing, *masks], words), np.arange(1, len(masks) + 1)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    masks = [mask(value) for value in python_values(encoded.dictionary)]
    return stack([missing, *masks], words), _dictionary_codes(encoded)


def _dictionary_codes(column: pa.Array) -> Codes:
    codes = raw_values(column.indices).astype(_narrowest(len(column.dictionary)))
    codes += 1
    return zero_where_null(codes, column.indices)


# --- numbers and times ----------------------------------------------------------------------------------------------


def _presence_codes(table: Steps, column: pa.Array) -> Codes:
    """Return the codes of a column of which rules only ask whether there is a value."""
    value_type = table.slot.type
    if value_type is not None and not holds_kind(column.type, value_type.kind):
        return _all_missing(column)
    return zero_where_null(np.ones(len(column), dtype=np.uint8), column)


def _number_codes(table: Steps, column: pa.Array) -> Codes:
    kind = column.type
    if is_time(kind):
        return zero_where_null(_count_passed(table.edges, micros(column)), column)
    if pa.types.is_integer(kind):
        return zero_where_null(_count_passed(table.edges, raw_values(column)), column)
    if pa.types.is_floating(kind) and table.slot.line is not lines.WHOLE:
        values = raw_values(column).astype(np.float64, copy=False)
        codes = zero_where_null(_count_below(np.array(table.float_edges, dtype=np.float64), values), column)
        codes *= values == values  # NaN, the only number that differs from itself, is missing
        return codes
    return _all_missing(column)


def _age_codes(table: Steps, column: pa.Array, now: int) -> Codes:
    if not (is_time(column.type) or pa.types.is_integer(column.type)):
        return _all_missing(column)
    values = micros(column) if is_time(column.type) else raw_values(column)
    # age >= edge, that is: not value >= now - edge + 1
    too_young = _count_passed([now - edge + 1 for edge in reversed(table.edges)], values)
    return zero_where_null(len(table.edges) + 2 - too_young, column)


def _flag_codes(table: Steps, column: pa.Array) -> Codes:
    if not pa.types.is_boolean(column.type):
        return _all_missing(column)
    of_false, of_true = table.cell(False) + 1, table.cell(True) + 1
    codes = raw_values(column).view(np.uint8) * np.uint8((of_true - of_false) % 256)
    codes += np.uint8(of_false)  # modulo 256, as the line before
    return zero_where_null(codes, column)


def _count_passed(edges: Sequence[int], values: npt.NDArray[Any]) -> Codes:
    """Return for each integer 1 plus the number of ascending edges at or below it; edges may be of any size."""
    limits = np.iinfo(values.dtype)
    below = sum(edge < limits.min for edge in edges)
    above = sum(edge > limits.max for edge in edges)
    within = np.array(edges[below : len(edges) - above], dtype=values.dtype)
    passed = _count_below(within, values)
    return passed + below if below else passed


def _count_below(edges: npt.NDArray[Any], values: npt.NDArray[Any]) -> Codes:
    """Return for each value 1 plus the number of ascending edges at or below it."""
    if len(edges) > _FEW_EDGES:
        return np.searchsorted(edges, values, side="right") + 1
    count = np.ones(len(values), dtype=np.uint8)
    for edge in edges:
        count += values >= edge
    return count


def _narrowest(most: int) -> npt.DTypeLike:
    """Return the smallest type that holds whole numbers up to ``most``."""
    return np.min_scalar_type(most)


def _all_missing(column: pa.Array) -> Codes:
    return np.zeros(len(column), dtype=np.uint8)


# --- lists ----------------------------------------------------------------------------------------------------------


def look_up_lists(table: Elements, column: pa.Array, words: int) -> Lookup:
    """Return the masks of lists, without their null elements: a line for each row."""
    missing = to_words(table.missing, words)
    if not is_list(column.type):
        return missing[None, :], _all_missing(column)
    elements, parents = pc.list_flatten(column), to_numpy(pc.list_parent_indices(column))
    nulls = null_flags(elements)
    if nulls is not None:
        elements, parents = elements.filter(pa.array(~nulls)), parents[~nulls]
    is_missing = np.zeros(len(column), dtype=np.bool_) if column.null_count == 0 else null_flags(column)
    assert table.slot.type is not None, table.slot
    if holds_kind(elements.type, table.slot.type.kind):
        masks = _list_masks(table, elements, parents, len(column), words)
    else:  # of another type: only empty lists count as lists of the right type
        masks = np.tile(to_words(table.present(()), words), (len(column), 1))
        masks[parents] = missing
    masks[is_missing] = missing
    return np.vstack([missing[None, :], masks]), np.arange(1, len(column) + 1)


def _list_masks(table: Elements, elements: pa.Array, parents: npt.NDArray[Any], rows: int, words: int) -> Words64:
    encoded = elements.dictionary_encode()
    values = [python_value(scalar) for scalar in encoded.dictionary]
    codes = to_numpy(encoded.indices).astype(np.intp)

    def masks_in(masks: dict[Value, int]) -> Words64:
        """Return for each row the union of the masks of its elements."""
        together = np.zeros((rows, words), dtype=np.uint64)
        if len(codes):
            of_values = stack([masks.get(value, 0) for value in values], words)
            starts = np.flatnonzero(np.diff(parents, prepend=-1))
            together[parents[starts]] = np.bitwise_or.reduceat(of_values[codes], starts, axis=0)
        return together

    masks = to_words(table.allowed, words) & ~masks_in(table.forbidden)
    for plane in table.planes:
        masks &= to_words(plane.free, words) | masks_in(plane.elements)
    return masks
