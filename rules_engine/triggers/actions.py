"""Describes an action: what a trigger sends to one sink when it fires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import orjson

from rules_engine.clock import format_instant


def action_key(instance: str, sink: str) -> str:
    """Return the idempotency key of an instance's action for one sink: the same on every try, fit for an HTTP header.

    >>> action_key("recover_cart:42:enter:carts:1700000000000000", "webhook:crm")
    '29444bc437f246b16f120f33142af67a'
    """
    return blake2b(f"{instance}\0{sink}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Action:
    """Holds what is sent to one sink.

    Attributes
    ----------
    key
        from :func:`action_key`; equal keys are the same action.
    sink
        where it goes, ``KIND:NAME`` as :class:`rules_engine.rules.settings.nodes.SinkRef` prints it.
    cause
        ``enter``, ``exit`` or ``event``.
    segment, event
        what was entered or left, or which event came.
    at
        the instant at which the trigger fired, in microseconds.
    definitions
        the version of the definitions.
    payload
        JSON values by name.
    """

    key: str
    sink: str
    trigger: str
    entity: str
    cause: str
    at: int
    segment: str | None = None
    event: str | None = None
    definitions: str = ""
    payload: Mapping[str, Any] | None = None

    def body(self) -> bytes:
        """Return the action as every sink gets it.

        >>> Action("k1", "stream:mails", "recover_cart", "42", "enter", 0, "carts", payload={"value": 9.5}).body()
        b'{"key":"k1","trigger":"recover_cart","entity":"42","cause":"enter","segment":"carts","event":null,\
"at":"1970-01-01T00:00:00Z","definitions_version":"","payload":{"value":9.5}}'
        """
        return orjson.dumps(
            {
                "key": self.key,
                "trigger": self.trigger,
                "entity": self.entity,
                "cause": self.cause,
                "segment": self.segment,
                "event": self.event,
                "at": format_instant(self.at),
                "definitions_version": self.definitions,
                "payload": self.payload or {},
            }
        )

    def encode(self) -> bytes:
        """Return the action as it waits in a queue; :meth:`decode` is the inverse."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, data: bytes) -> Action:
        """Return the inverse of :meth:`encode`.

        Raises
        ------
        ValueError
            if it is none.

        >>> action = Action("k1", "stream:mails", "recover_cart", "42", "enter", 0)
        >>> Action.decode(action.encode()) == action
        True
        """
        try:
            return cls(**orjson.loads(data))
        except TypeError as error:
            raise ValueError(f"not an action: {error}") from error
