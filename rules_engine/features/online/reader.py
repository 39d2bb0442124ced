"""Define the protocols of the readers that read features from an online store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from rules_engine.features.online.row_layout import Row, RowLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.read_plan import ReadPlan

_Answer = TypeVar("_Answer")


class RowReader(Protocol):
    """Gives rows as the store has them, undecoded. Safe to share between threads."""

    def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read what the store has of entities, in order.

        Parameters
        ----------
        layout
            of features of the same store, without event state.
        entities
            their keys.

        Raises
        ------
        StoreError
            if the store cannot be read.
        StoreDataError
            if it does not know an entity, and has forgotten what it held.
        """
        ...

    def answers(
        self, layout: RowLayout, entities: Sequence[str], answer: Callable[[str, Row], _Answer]
    ) -> list[_Answer]:
        """Return ``answer`` of each entity and its row, in order, while the store reads on. See :meth:`rows`."""
        ...


class OnlineReader(Protocol):
    """Reads features from an online store. Safe to share between threads.

    Attributes
    ----------
    undecoded
        itself, if it can give rows as the store has them; else None.
    """

    @property
    def undecoded(self) -> RowReader | None: ...

    def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order.

        Parameters
        ----------
        entities
            their keys. An entity that the store does not know gives an ``EntityFeatures`` without values.
        features
            ``"view:name"`` each; by default all of the read plan.
        state_name
            the name of the event state that is read with the features; None reads none.

        Raises
        ------
        UnknownNameError
            if the read plan has no such feature.
        StoreError
            if the store cannot be read.
        StoreDataError
            if it holds other bytes than the plan says, or has forgotten what it held.
        UnsupportedError
            if the store keeps no events.
        """
        ...

    def for_plan(self, plan: ReadPlan) -> OnlineReader | None:
        """Give a reader of a newer plan on the same store; None if the plan has another store.

        This one still ends what it began. It is to be closed only if there is no reader that follows it.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
