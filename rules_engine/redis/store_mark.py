"""Read and write the mark of what the store holds for a project: written last, and checked by every reader.

A server may be emptied, replaced, or brought back from an older copy, and then answers as if nobody had ever done
anything. The mark lies among the data and goes the way they go. It is one hash, ``segments:{PROJECT}:held``:

``view:NAME``
    of a feature view: empty while nothing was materialized; then up to which instant, and with which features.
``states``
    the name of the event states that are complete.
``before``
    the name of those that were complete before, which requests may still read for a moment.
``building``
    how far a rebuild of event states is.

docs/adr/0017-a-store-that-forgets.md says what can be noticed this way, and what cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.redis.endpoint import pack_command
from rules_engine.redis.feast_layout import project_key

#: The fields of the mark that tell of event states.
STATES, BEFORE, BUILDING = b"states", b"before", b"building"


def mark_key(project: str) -> bytes:
    """Give the key of a project's mark.

    >>> mark_key("shop")
    b'segments:{shop}:held'
    """
    return project_key(project, "held")


def view_field(view: str) -> bytes:
    """Give the field of the mark that tells of a feature view."""
    return f"view:{view}".encode()


@dataclass(frozen=True, slots=True)
class ViewMark:
    """Says up to when a feature view is in the store.

    Attributes
    ----------
    end
        up to which instant it was materialized, in microseconds.
    features
        a hash of the features with which that was done.

    Examples
    --------
    >>> ViewMark.decode(ViewMark(1_000_000, "a1").encode())
    ViewMark(end=1000000, features='a1')
    """

    end: int
    features: str

    def encode(self) -> bytes:
        """Return the value as it is stored in the mark."""
        return orjson.dumps({"end": self.end, "features": self.features})

    @classmethod
    def decode(cls, raw: bytes | None) -> ViewMark | None:
        """Read the value from the mark; None if nothing was materialized, or the mark cannot be read."""
        try:
            content = orjson.loads(raw or b"")
            return cls(int(content["end"]), str(content["features"]))
        except (ValueError, KeyError, TypeError):
            return None


class StoreMark:
    """Reads and writes a project's mark.

    Parameters
    ----------
    client
        a client of redis-py.
    project
        Feast's name of the project.
    """

    def __init__(self, client: Any, project: str) -> None:
        self._client = client
        self._key = mark_key(project)

    def view(self, view: str) -> ViewMark | None:
        """Give what is held of a view; None if nothing was materialized, or the store has forgotten it."""
        return ViewMark.decode(self._client.hget(self._key, view_field(view)))

    def note_view(self, view: str, content: ViewMark) -> None:
        """Write that a view is held. Call it when all rows are written."""
        self._client.hset(self._key, view_field(view), content.encode())

    def forget_view(self, view: str) -> None:
        """Take a view's mark away, before what is held of it is taken away."""
        self._client.hdel(self._key, view_field(view))

    def declare(self, views: Iterable[str]) -> None:
        """Write that these views are known, and nothing was materialized yet. What is held already stays."""
        for view in views:
            self._client.hsetnx(self._key, view_field(view), b"")

    def missing(self, views: Iterable[str]) -> list[str]:
        """Name the views that the store knows nothing of."""
        names = list(views)
        marks = self._client.hmget(self._key, [view_field(view) for view in names]) if names else []
        return [view for view, mark in zip(names, marks, strict=True) if mark is None]

    @property
    def states(self) -> bytes | None:
        """Return the name of the event states that are complete; None if none are."""
        name: bytes | None = self._client.hget(self._key, STATES)
        return name

    def note_states(self, name: bytes) -> None:
        """Write that event states are complete. Call it when they are."""
        before = self.states
        if before is not None and before != name:
            self._client.hset(self._key, BEFORE, before)
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._key, STATES, name)
            pipeline.hdel(self._key, BUILDING)
            pipeline.execute()

    @property
    def is_building(self) -> bool:
        """Tell whether a rebuild of event states has begun and not ended."""
        return bool(self._client.hexists(self._key, BUILDING))

    def building(self, name: bytes) -> tuple[int, int] | None:
        """Return the last day of the log that an interrupted rebuild of these states completed, and when it began."""
        try:
            content = orjson.loads(self._client.hget(self._key, BUILDING) or b"")
            return (int(content["day"]), int(content["began"])) if content["name"] == name.decode() else None
        except (ValueError, KeyError, TypeError):
            return None

    def note_building(self, name: bytes, day: int, began: int) -> None:
        """Write the last day that a rebuild of event states completed, and when it began, in microseconds."""
        content = {"name": name.decode(), "day": day, "began": began}
        self._client.hset(self._key, BUILDING, orjson.dumps(content))


class MarkCheck:
    """Checks the mark for one question: whether what an answer rests on is there.

    Parameters
    ----------
    project
        Feast's name of the project.
    views
        the feature views that are read.
    states
        the name of the event states that are read; None if none are.

    Attributes
    ----------
    command
        what asks for the mark, as it goes over the wire.
    """

    __slots__ = ("_states", "_views", "command", "fields", "key")

    def __init__(self, project: str, views: Sequence[str], states: bytes | None) -> None:
        self.key = mark_key(project)
        self._states = states
        self._views = tuple(views)
        self.fields = [view_field(view) for view in views]
        if states is not None:
            self.fields += [STATES, BEFORE]
        self.command = pack_command("HMGET", self.key, *self.fields)

    def verify(self, answer: Sequence[bytes | None]) -> None:
        """Look at the answer to the command.

        Raises
        ------
        StoreDataError
            if the store does not hold what is read.
        """
        if self._states is not None and self._states not in answer[-2:]:
            raise StoreDataError(
                "the online store does not hold the event states of these definitions: what people did is not known",
                hint="the store was emptied or replaced, or an apply did not end: run `segments apply`",
            )
        lost = [view for view, mark in zip(self._views, answer, strict=False) if mark is None]
        if lost:
            named = ", ".join(f"`{view}`" for view in lost)
            raise StoreDataError(
                f"the online store holds nothing of the feature view{'s' if len(lost) > 1 else ''} {named}",
                hint="the store was emptied or replaced: run `segments materialize`, and `segments apply` before it if "
                "segments read events",
            )
