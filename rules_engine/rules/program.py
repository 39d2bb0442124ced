"""A checked set of segment definitions, ready for any target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from rules_engine.errors import UnknownNameError
from rules_engine.rules.nodes import Condition, Segment
from rules_engine.rules.reference_graph import reversed_references
from rules_engine.rules.walk import reads_events, segment_references, walk


@dataclass(frozen=True)
class Program:
    """Segments by name. References between them are resolved and without cycles.

    >>> Program({}).names
    ()
    """

    segments: Mapping[str, Segment]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, sorted."""
        return tuple(sorted(self.segments))

    def segment(self, name: str) -> Segment:
        """Return one segment.

        Raises
        ------
        UnknownNameError
            if there is none of that name.
        """
        from rules_engine.diagnostics import listing, nearest

        if name not in self.segments:
            hint = nearest(name, self.segments) or (f"there is {listing(self.names)}" if self.segments else None)
            raise UnknownNameError(f"there is no segment `{name}`", hint=hint)
        return self.segments[name]

    @cached_property
    def references(self) -> Mapping[str, tuple[str, ...]]:
        """Return by segment the names that it refers to directly, sorted."""
        return {name: tuple(sorted(segment_references(each.when))) for name, each in self.segments.items()}

    @cached_property
    def dependents(self) -> Mapping[str, list[str]]:
        """Return by segment the names of those that refer to it directly."""
        return reversed_references(self.references)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Return the names in an order in which a segment comes after every segment that it refers to."""
        ordered: dict[str, None] = {}
        for name in self.names:
            self._visit(name, ordered)
        return tuple(ordered)

    def _visit(self, name: str, ordered: dict[str, None]) -> None:
        if name in ordered:
            return
        for reference in self.references[name]:
            self._visit(reference, ordered)
        ordered[name] = None

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the named segments and all that they refer to, in evaluation order."""
        ordered: dict[str, None] = {}
        for name in names:
            self.segment(name)
            self._visit(name, ordered)
        return tuple(ordered)

    @cached_property
    def event_conditions(self) -> tuple[Condition, ...]:
        """Return the conditions that read events themselves, each once, in an order that depends only on them."""
        by_text = {repr(node): node for name in self.names for node in walk(self.segments[name].when)}
        return tuple(by_text[text] for text in sorted(by_text) if reads_events(by_text[text]))
