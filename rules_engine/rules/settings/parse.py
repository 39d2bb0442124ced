"""The ``project:`` document: the instant that counts as now, where consents stand, and the sinks that actions go to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rules_engine.clock import parse_instant
from rules_engine.definitions.envelope import check_schema
from rules_engine.definitions.source import Entry, Mapping, Node, to_plain
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.document import Scope
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import check_name, keys_of
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.weights import fraction, percent
from rules_engine.rules.settings.codec import decode_service
from rules_engine.rules.settings.frequency import frequencies
from rules_engine.rules.settings.nodes import Frequency, ServiceSettings, Settings
from rules_engine.rules.settings.schema import SERVICE
from rules_engine.rules.settings.sinks import sink_kind, sink_settings
from rules_engine.rules.types import BOOLEAN
from rules_engine.sinks.settings import SinkSettings

#: The largest share of entities, in percent, that may take part in no experiment.
MOST_HELD_OUT = 50

_T = TypeVar("_T")
_N = TypeVar("_N", Node, Entry)


def parse_settings(document: Mapping, scope: Scope) -> Settings:
    """Return the settings without the refused parts, and add the names of sinks and consents to ``scope``."""
    parser = _SettingsParser(scope)
    return Settings(
        str(to_plain(document.entry("project").value)),
        parser.now(document),
        parser.consent(document),
        parser.sinks(document),
        parser.service(document),
        parser.frequency(document),
        parser.holdout(document),
    )


class _SettingsParser:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._conditions = ConditionParser(scope.catalog, scope.segments)

    def now(self, document: Mapping) -> int | None:
        return self._collected(_instant, document.entry("now").value) if "now" in document else None

    def consent(self, document: Mapping) -> dict[str, FeatureRef]:
        consents = self._scope.consent
        for entry in self._entries(document, "consent", "maps names to features, e.g. `{marketing: user:marketing}`"):
            consents[entry.key] = self._collected(self._consent, entry)
        return {name: feature for name, feature in consents.items() if feature is not None}

    def sinks(self, document: Mapping) -> dict[str, SinkSettings]:
        sinks: dict[str, SinkSettings] = {}
        for entry in self._entries(document, "sinks", 'maps names to sinks, e.g. `{crm: {webhook: "https://..."}}`'):
            self._scope.sinks[entry.key] = sink_kind(entry.value)
            sink = self._collected(self._sink, entry)
            if sink is not None:
                sinks[entry.key] = sink
        return sinks

    def frequency(self, document: Mapping) -> tuple[Frequency, ...]:
        """Return the limits on how often triggers may fire."""
        node = document.get("frequency")
        return () if node is None else self._collected(frequencies, node) or ()

    def service(self, document: Mapping) -> ServiceSettings:
        """Return what the service's part says; nothing if its shape is wrong, which is told elsewhere."""
        node = document.get("service")
        if node is None or check_schema(node, SERVICE):
            return ServiceSettings()
        return decode_service({"service": to_plain(node)})

    def holdout(self, document: Mapping) -> float:
        """Return the share of entities that take part in no experiment; nobody if it is not given or refused."""
        node = document.get("holdout")
        return (self._collected(_holdout, node) if node is not None else None) or 0.0

    def _entries(self, document: Mapping, key: str, what: str) -> tuple[Entry, ...]:
        value = document.get(key)
        if value is None or isinstance(value, Mapping):
            return () if value is None else value.entries
        message = f"`{key}` {what}, and is not {describe(value)}"
        self._scope.problems.append(Diagnostic("wrong-shape", value.span, message))
        return ()

    def _collected(self, parse: Callable[[_N], _T], node: _N) -> _T | None:
        try:
            return parse(node)
        except Refusal as refusal:
            self._scope.problems.append(refusal.diagnostic)
            return None

    def _consent(self, entry: Entry) -> FeatureRef:
        check_name(entry, "a consent")
        operand, value_type = self._conditions.feature(entry.value)
        if not isinstance(operand, FeatureRef) or value_type not in (None, BOOLEAN):
            message = f"a consent is a feature that is true or false, and `{operand}` is of type {value_type}"
            raise Refusal("operator-type", entry.value, message)
        return operand

    def _sink(self, entry: Entry) -> SinkSettings | None:
        check_name(entry, "a sink")
        return sink_settings(entry, self._scope.problems)


def _holdout(node: Node) -> float:
    value = keys_of(node, "holdout", ("percent",)).entry("percent").value
    share = percent(value, "the share held out")
    if not 0 < share <= MOST_HELD_OUT:
        raise Refusal("invalid-percent", value, f"the share held out is above 0 and at most {MOST_HELD_OUT}")
    return fraction(share)


def _instant(node: Node) -> int:
    try:
        return parse_instant(str(to_plain(node)))
    except ValueError as error:
        code = "instant-without-offset" if "has no offset" in str(error) else "invalid-instant"
        raise Refusal(code, node, str(error)) from None
