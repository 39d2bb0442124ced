"""The names of events and properties under which senders report, and what is declared under them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.events.declarations.events_yaml import EventDeclarations
from rules_engine.events.declarations.names import declared_names, snake_case
from rules_engine.events.declarations.validation import event_names


class Vocabulary:
    """Finds declared events and properties by the names that SDKs give them.

    The declared name counts first, then an alias, then the name in small letters with underscores.

    Parameters
    ----------
    declarations
        what events.yaml declares.

    Attributes
    ----------
    writes_traits
        whether traits are written to a feature view.

    Examples
    --------
    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> purchase = "{properties: {order_id: {type: string}}, retention: ever, aliases: [Order Completed]}"
    >>> words = Vocabulary(parse_events(f"{{events: {{purchase: {purchase}}}}}"))
    >>> words.event("Order Completed"), words.event("Product Viewed"), words.properties("purchase", {"orderId": "o1"})
    ('purchase', 'product_viewed', {'order_id': 'o1'})
    """

    def __init__(self, declarations: EventDeclarations) -> None:
        self._events = event_names(declarations)
        self._properties = {name: tuple(event.type.properties) for name, event in declarations.events.items()}
        self.writes_traits = declarations.traits is not None

    def event(self, name: str) -> str:
        """Return the declared name of an event; what is not declared is named as it would have to be."""
        declared = self._events.get(name)
        if declared is None:
            spelled = snake_case(name)
            declared = self._events.get(spelled, spelled)
        return declared

    def declares(self, event: str) -> bool:
        """Say whether an event of that name is declared."""
        return event in self._properties

    def properties(self, event: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the properties of an event by their declared names; others keep theirs."""
        return declared_names(values, self._properties.get(event, ()))
