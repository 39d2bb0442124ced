"""The answer to a lookup."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from rules_engine.errors import StoreError

_Change = datetime | Callable[[], datetime | None] | None
_Undecided = frozenset[str] | Callable[[], frozenset[str]]
_NONE: frozenset[str] = frozenset()


class Membership:
    """The segments that an entity is in at an instant. Immutable, and safe to share between threads.

    Attributes
    ----------
    entity
        the entity's key.
    segments
        the names of the segments whose answer is true. A segment whose answer is unknown is not among them.
    at
        the instant of the answer, in UTC.
    error
        why the store could not be read, if the client was told to go on without it (``on_error="no_match"``). Then
        ``segments`` is empty because nothing is known.

    Examples
    --------
    >>> from datetime import UTC
    >>> membership = Membership("42", frozenset({"vip"}), datetime(2026, 1, 1, tzinfo=UTC))
    >>> "vip" in membership, "lapsed" in membership, membership.changes_at
    (True, False, None)
    """

    __slots__ = ("_change", "_undecided", "at", "entity", "error", "segments")

    entity: str
    segments: frozenset[str]
    at: datetime
    error: StoreError | None
    _change: _Change
    _undecided: _Undecided

    def __init__(
        self,
        entity: str,
        segments: frozenset[str],
        at: datetime,
        changes_at: _Change = None,
        error: StoreError | None = None,
        undecided: _Undecided = _NONE,
    ) -> None:
        # One call for each: this is made for every request.
        _set_entity(self, entity)
        _set_segments(self, segments)
        _set_at(self, at)
        _set_change(self, changes_at)
        _set_error(self, error)
        _set_undecided(self, undecided)

    @property
    def changes_at(self) -> datetime | None:
        """Return the first instant after ``at`` at which ``segments`` changes if no new data comes; None if never.

        It is computed when it is first asked for, from the data that the lookup read.
        """
        change = self._change
        if callable(change):
            # Two threads may both compute it; they find the same.
            change = change()
            _set_change(self, change)
        return change

    @property
    def undecided(self) -> frozenset[str]:
        """Return the segments whose answer is unknown because the entity did more than is kept of it; mostly none.

        They are not among ``segments``. Evaluation of the event log, which has everything, decides them. It is computed
        when it is first asked for, from the data that the lookup read.
        """
        undecided = self._undecided
        if callable(undecided):
            undecided = undecided()
            _set_undecided(self, undecided)
        return undecided

    def to_dict(self) -> dict[str, Any]:
        """Return the membership as JSON data, with sorted segments and instants as ISO 8601.

        >>> from datetime import UTC
        >>> Membership("42", frozenset({"b", "a"}), datetime(2026, 1, 1, tzinfo=UTC)).to_dict()["segments"]
        ['a', 'b']
        """
        change, undecided = self.changes_at, self.undecided
        return {
            "entity": self.entity,
            "segments": sorted(self.segments),
            "at": _text(self.at),
            "changes_at": None if change is None else _text(change),
            "error": None if self.error is None else str(self.error),
            **({"undecided": sorted(undecided)} if undecided else {}),
        }

    def __contains__(self, segment: object) -> bool:
        return segment in self.segments

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Membership):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, frozenset[str], datetime]:
        return self.entity, self.segments, self.at

    def __repr__(self) -> str:
        failed = f", error={self.error!r}" if self.error is not None else ""
        return f"Membership({self.entity!r}, segments={sorted(self.segments)}, at={_text(self.at)!r}{failed})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Membership, (self.entity, self.segments, self.at, self.changes_at, self.error, self.undecided)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Membership cannot be changed: `{name}`")


# The slots write past ``Membership.__setattr__``, which refuses.
_set_entity = Membership.__dict__["entity"].__set__
_set_segments = Membership.__dict__["segments"].__set__
_set_at = Membership.__dict__["at"].__set__
_set_change = Membership.__dict__["_change"].__set__
_set_error = Membership.__dict__["error"].__set__
_set_undecided = Membership.__dict__["_undecided"].__set__


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
