"""Read the events of a piece of the log as rules do: each different set of properties is looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rules_engine.events.log.event_log import decode_properties
from rules_engine.events.log.offline import EventPiece, Integers
from rules_engine.rules.nodes import EventMatch, EventValue
from rules_engine.rules.one_event import match_reads_instant, read_value, reads_instant, selects
from rules_engine.rules.types import Value, ValueType, conform


class PieceEvents:
    """The events of one piece.

    Parameters
    ----------
    piece
        the events.
    names
        of the events, by the numbers in the piece.
    """

    def __init__(self, piece: EventPiece, names: Sequence[str]) -> None:
        self._piece = piece
        self._names = names
        self._matching: dict[EventMatch, npt.NDArray[np.bool_]] = {}

    @cached_property
    def codes(self) -> Integers:
        """Return for each event the place of its properties in :attr:`documents`."""
        return self._encoded.indices.to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    @cached_property
    def documents(self) -> list[dict[str, Value]]:
        """Return each different set of properties."""
        return [decode_properties(text) for text in self._encoded.dictionary.to_pylist()]

    @cached_property
    def _encoded(self) -> Any:
        return self._piece.properties.dictionary_encode()

    def is_meant(self, match: EventMatch) -> npt.NDArray[np.bool_]:
        """Return for each event whether a match means it."""
        is_match = self._matching.get(match)
        if is_match is None:
            is_match = self._matching[match] = self._is_meant(match)
        return is_match

    def _is_meant(self, match: EventMatch) -> npt.NDArray[np.bool_]:
        is_named: npt.NDArray[np.bool_] = self._piece.names == self._names.index(match.event)
        if not match.where:
            return is_named
        if not match_reads_instant(match):
            fitting = [selects(match, match.event, document, 0) for document in self.documents]
            return is_named & np.array(fitting, dtype=np.bool_)[self.codes]
        rows = np.flatnonzero(is_named)
        meant = [selects(match, match.event, document, at) for document, at in self._with_instants(rows)]
        is_named[rows[~np.array(meant, dtype=np.bool_)]] = False
        return is_named

    def values(self, of: EventValue, of_type: ValueType | None, rows: Integers) -> list[Value]:
        """Return what is read of some events; None where it is missing or of another type."""
        if reads_instant(of):
            return [conform(read_value(of, document, at), of_type) for document, at in self._with_instants(rows)]
        values = [conform(read_value(of, document, 0), of_type) for document in self.documents]
        return [values[code] for code in self.codes[rows].tolist()]

    def _with_instants(self, rows: Integers) -> Iterator[tuple[dict[str, Value], int]]:
        documents = (self.documents[code] for code in self.codes[rows].tolist())
        yield from zip(documents, self._piece.ats[rows].tolist(), strict=True)
