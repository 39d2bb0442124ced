"""Read the rows of Feast's Redis store directly. The code that does not wait is shared with the asyncio reader."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from rules_engine.errors import StoreError
from rules_engine.features.online.row_layout import Row, RowLayout, RowLayouts
from rules_engine.features.online.selection import EntityFeatures, checked
from rules_engine.features.online.transports import Transport, open_transport
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.eviction import HINT, eviction_trouble
from rules_engine.redis.server import RedisServer

_Answer = TypeVar("_Answer")

#: For so many requests after an entity without a row, the mark is asked for at once: that costs a tenth of the round
#: trip that it saves if the next entity has no row either.
_AT_ONCE_FOR = 8

_log = logging.getLogger("rules_engine.store")


class RedisReads:
    """Holds what the synchronous and the asyncio reader of a server share.

    Parameters
    ----------
    plan
        the project's read plan.
    server
        where its store is.
    is_met
        whether the first request was answered, and it was looked at what the server does when its memory is full.
    """

    def __init__(self, plan: ReadPlan, server: RedisServer, *, is_met: bool) -> None:
        self.server = server
        self._plan = plan
        self._layouts = RowLayouts(plan)
        self._is_met = is_met
        self._at_once = 0  # requests that still ask for the mark at once

    @property
    def _expects_unknown(self) -> bool:
        """Tell whether an entity without a row came shortly before, so that the mark is asked for with the row."""
        return self._at_once > 0

    def _note(self, *, is_unknown: bool) -> None:
        """Remember whether the last entity had no row. Threads may lose a count: it only decides about a round trip."""
        self._at_once = _AT_ONCE_FOR if is_unknown else self._at_once - 1

    def _layout(self, entities: Sequence[str], features: Sequence[str] | None, state_name: bytes | None) -> RowLayout:
        """Return the layout of the features that are read, and check the keys.

        Raises
        ------
        TypeError
            if a key is no string.
        UnknownNameError
            if the plan has no such feature.
        """
        layout = self._layouts.of(features, state_name)
        for entity in entities:
            if entity.__class__ is not str:
                checked(entity)
        return layout

    def _warn(self, policy: str | None) -> None:
        """Log a warning if the server may evict keys."""
        trouble = eviction_trouble(policy, self.server.address)
        if trouble is not None:
            _log.warning("%s; %s", trouble, HINT)


class RedisReader(RedisReads):
    """Reads the rows of Feast's Redis store directly. Safe to share between threads.

    Parameters
    ----------
    plan
        the project's read plan.
    server
        where its store is.
    transport
        connections to it; by default new ones.
    is_met
        whether the server was looked at closer already.

    Raises
    ------
    ProjectError
        if the address cannot be made out.
    StoreError
        if a cluster, sentinels or the embedded server cannot be reached.
    """

    def __init__(
        self, plan: ReadPlan, server: RedisServer, transport: Transport | None = None, *, is_met: bool = False
    ) -> None:
        super().__init__(plan, server, is_met=is_met)
        self.transport = open_transport(server) if transport is None else transport

    @property
    def undecoded(self) -> RedisReader:
        """Return the reader itself: rows are given as the store has them."""
        return self

    def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        layout = self._layout(entities, features, state_name)
        if not entities:
            return []
        if not layout.fields and state_name is None:
            return [EntityFeatures(entity) for entity in entities]
        if state_name is None:
            return [layout.decode(*pair) for pair in zip(entities, self.rows(layout, entities), strict=True)]
        return self._ask(partial(self.transport.read, layout, entities))

    def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read what the store has of entities, undecoded, in order. See :meth:`RowReader.rows`."""
        if len(entities) == 1 and layout.state_name is None:
            return self._ask(partial(self._row, layout, entities))
        rows = self._ask(partial(self.transport.rows, layout, entities))
        unknown = layout.unknown(rows)
        if unknown:
            confirmed = self._ask(partial(self.transport.confirmed, layout, [entities[place] for place in unknown]))
            for place, row in zip(unknown, confirmed, strict=True):
                rows[place] = row
        return rows

    def _row(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read the row of one entity; if it has none, it is read with the mark in one piece."""
        if not self._expects_unknown:
            rows = self.transport.rows(layout, entities)
            if not layout.is_unknown(rows[0]):
                return rows
        rows = self.transport.confirmed(layout, entities)
        self._note(is_unknown=layout.is_unknown(rows[0]))
        return rows

    def answers(
        self, layout: RowLayout, entities: Sequence[str], answer: Callable[[str, Row], _Answer]
    ) -> list[_Answer]:
        """Answer for each entity by its row, in order. See :meth:`RowReader.answers`."""
        answers: list[_Answer] = []
        unknown: list[int] = []

        def accept(row: Row) -> None:
            if layout.state_name is None and layout.is_unknown(row):
                unknown.append(len(answers))
            answers.append(answer(entities[len(answers)], row))

        self._ask(lambda: self.transport.each(layout, entities[len(answers) :], accept))
        if unknown:
            keys = [entities[place] for place in unknown]
            confirmed = self._ask(partial(self.transport.confirmed, layout, keys))
            for place, key, row in zip(unknown, keys, confirmed, strict=True):
                answers[place] = answer(key, row)
        return answers

    def _ask(self, action: Callable[[], _Answer]) -> _Answer:
        """Ask the server; one that is ours to start is started if it was stopped. Look at it closer the first time."""
        answer = self.server.retried(action)
        if not self._is_met:
            self._meet()
        return answer

    def _meet(self) -> None:
        self._is_met = True
        try:
            self._warn(self.transport.eviction_policy())
        except StoreError as error:
            unmet(error)

    def for_plan(self, plan: ReadPlan) -> RedisReader | None:
        """Give a reader of a newer plan with the same connections. See :meth:`OnlineReader.for_plan`."""
        if plan.connection != self._plan.connection:
            return None
        return RedisReader(plan, self.server, self.transport, is_met=self._is_met)

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()


def unmet(error: StoreError) -> None:
    """Say that it could not be looked at what the server does when its memory is full."""
    _log.warning("it is not known what the online store does when its memory is full: %s", error)
