"""The ``project:`` document: the instant that counts as now, where consents stand, and the sinks that actions go to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from rules_engine.clock import parse_instant
from rules_engine.definitions.source import Entry, Mapping, Node, to_plain
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import NAME
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.triggers.sink_settings import sink_kind, sink_settings
from rules_engine.rules.types import BOOLEAN
from rules_engine.sinks.settings import SinkSettings

_T = TypeVar("_T")


@dataclass(slots=True)
class ParsedSettings:
    """What a document says; under names whose value was refused stands None."""

    name: str = ""
    now: int | None = None
    consent: dict[str, FeatureRef | None] = field(default_factory=dict)
    sinks: dict[str, SinkSettings | None] = field(default_factory=dict)
    kinds: dict[str, str | None] = field(default_factory=dict)


class SettingsParser:
    """Parses a project's settings; ``problems`` collects what is wrong."""

    def __init__(self, conditions: ConditionParser) -> None:
        self._conditions = conditions
        self.problems: list[Diagnostic] = []

    def settings(self, document: Mapping) -> ParsedSettings:
        """The settings of a document whose envelope was checked."""
        parsed = ParsedSettings(str(to_plain(document.entry("project").value)))
        if "now" in document:
            parsed.now = self._collected(_instant, document.entry("now").value)
        for entry in self._entries(document, "consent", "maps names to features, e.g. `{marketing: user:marketing}`"):
            parsed.consent[entry.key] = self._collected(self._consent, entry)
        for entry in self._entries(document, "sinks", 'maps names to sinks, e.g. `{crm: {webhook: "https://..."}}`'):
            parsed.kinds[entry.key] = sink_kind(entry.value)
            parsed.sinks[entry.key] = self._collected(self._sink, entry)
        return parsed

    def _entries(self, document: Mapping, key: str, what: str) -> tuple[Entry, ...]:
        value = document.get(key)
        if value is None or isinstance(value, Mapping):
            return () if value is None else value.entries
        self.problems.append(Diagnostic("wrong-shape", value.span, f"`{key}` {what}, and is not {describe(value)}"))
        return ()

    def _collected(self, parse: Callable[[_N], _T], given: _N) -> _T | None:
        try:
            return parse(given)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _consent(self, entry: Entry) -> FeatureRef:
        _check_name(entry, "a consent")
        operand, value_type = self._conditions.feature(entry.value)
        if not isinstance(operand, FeatureRef) or value_type not in (None, BOOLEAN):
            message = f"a consent is a feature that is true or false, and `{operand}` is of type {value_type}"
            raise Refusal("operator-type", entry.value, message)
        return operand

    def _sink(self, entry: Entry) -> SinkSettings | None:
        _check_name(entry, "a sink")
        return sink_settings(entry, self.problems)


_N = TypeVar("_N", Node, Entry)


def _instant(node: Node) -> int:
    try:
        return parse_instant(str(to_plain(node)))
    except ValueError as error:
        code = "instant-without-offset" if "has no offset" in str(error) else "invalid-instant"
        raise Refusal(code, node, str(error)) from None


def _check_name(entry: Entry, what: str) -> None:
    if not NAME.match(entry.key):
        hint = "write small letters, digits and underscores, starting with a letter, at most 63"
        raise at_key("invalid-name", entry, f"`{entry.key}` cannot be the name of {what}", hint)
