"""Parses a ``trigger:`` document: resolves every name, checks every time and number, and collects all problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from rules_engine.clock import parse_time_of_day
from rules_engine.definitions.source import Entry, Items, Node, Scalar, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.document import Scope
from rules_engine.rules.nodes import Condition, ContextRef, FeatureRef, Predicate
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import NAME, PARTS, keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, duration
from rules_engine.rules.parsing.operand_checks import at_key, string_value
from rules_engine.rules.parsing.shares import share
from rules_engine.rules.settings.frequency import count
from rules_engine.rules.settings.nodes import Consent, SinkRef
from rules_engine.rules.triggers.nodes import (
    EVER,
    Cap,
    Cause,
    OnEnter,
    OnEvent,
    OnExit,
    PayloadValue,
    QuietHours,
    QuietPolicy,
    Trigger,
)
from rules_engine.rules.triggers.payload import payload
from rules_engine.rules.walk import parts, walk
from rules_engine.sinks.base import STREAM
from rules_engine.sinks.registry import sink_kinds

_T = TypeVar("_T")

CAUSES = ("on_enter", "on_exit", "on_event")


def parse_trigger(document: MappingNode, scope: Scope) -> Trigger | None:
    """Return the trigger of a document, or None if a part of it was refused.

    >>> from rules_engine.definitions.source import from_plain
    >>> from rules_engine.rules.catalog import Catalog
    >>> scope = Scope(Catalog(closed=False), {"segment": ["vip"]})
    >>> parse_trigger(from_plain({"trigger": "hello", "on_enter": "vpi", "send": [{"stream": "mails"}]}), scope) is None
    True
    >>> scope.problems[0].code, scope.problems[0].hint
    ('unknown-segment', 'did you mean `vip`?')
    """
    parser = _TriggerParser(scope)
    trigger = parser.trigger(document)
    scope.problems += parser.problems
    return trigger


class _TriggerParser:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._conditions = ConditionParser(scope.catalog, scope.segments)
        #: Shared with the parser of conditions, so that problems stand in the order of the text.
        self.problems = self._conditions.problems

    def trigger(self, document: MappingNode) -> Trigger | None:
        before = len(self.problems)
        name = str(to_plain(document.entry("trigger").value))
        cause: Cause | None = None
        try:
            cause = self._cause(document)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
        holdout = self._part(document, "holdout", lambda node: share(node, "holdout", seed=name))
        delay = self._part(document, "delay", duration)
        parts = {
            "if_": self._part(document, "if", self._condition),
            "cancel_if": self._part(document, "cancel_if", self._condition),
            "cooldown": self._part(document, "cooldown", _duration_or_ever),
            "cap": self._part(document, "cap", self._cap),
            "quiet_hours": self._part(document, "quiet_hours", self._quiet_hours),
            "consent": self._part(document, "requires_consent", self._consent),
        }
        send = self._part(document, "send", self._send)
        event = cause.match.event if isinstance(cause, OnEvent) else None
        values = self._part(document, "payload", lambda node: self._payload(node, event))
        if len(self.problems) > before or cause is None or not send:
            return None
        plain = {entry.key: to_plain(entry.value) for entry in document if entry.key in (*PARTS, "priority")}
        return Trigger(
            name=name,
            on=cause,
            send=send,
            delay=delay or 0,
            holdout=holdout[0] if holdout else 0,
            holdout_seed=holdout[1] if holdout else "",
            priority=plain.get("priority", 0),
            payload=values or (),
            description=plain.get("description", ""),
            owner=plain.get("owner", ""),
            tags=tuple(plain.get("tags", ())),
            span=document.span,
            **parts,  # type: ignore[arg-type]
        )

    def _collected(self, parse: Callable[[Node], _T | None], node: Node) -> _T | None:
        try:
            return parse(node)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _part(self, document: MappingNode, key: str, parse: Callable[[Node], _T | None]) -> _T | None:
        return self._collected(parse, document.entry(key).value) if key in document else None

    # --- what starts it ---------------------------------------------------------------------------------------------

    def _cause(self, document: MappingNode) -> Cause | None:
        causes = [entry for entry in document if entry.key in CAUSES]
        if not causes:
            hint = "add e.g. `on_enter: SEGMENT`"
            raise Refusal("missing-key", document, f"a trigger needs one of {listing(CAUSES)}", hint)
        if len(causes) > 1:
            message = f"a trigger has one cause, and this one has `{causes[0].key}` and `{causes[1].key}`"
            raise at_key("several-causes", causes[1], message, "make two triggers of it")
        entry = causes[0]
        if entry.key == "on_event":
            return self._on_event(entry.value)
        name = self._conditions.segment_name(entry.value)
        return OnEnter(name) if entry.key == "on_enter" else OnExit(name)

    def _on_event(self, node: Node) -> OnEvent | None:
        if isinstance(node, Scalar) and isinstance(node.value, str):
            raise Refusal("wrong-shape", node, "`on_event` is a mapping", f"write `{{did: {node.value}}}`")
        keys = keys_of(node, "on_event", ("did",), ("where",), _event_hint)
        match = self._conditions.events.match(keys, "did")
        return None if match is None else OnEvent(match)

    # --- what it waits for ------------------------------------------------------------------------------------------

    def _condition(self, node: Node) -> Condition | None:
        condition = self._conditions.condition(node)
        for part in walk(condition) if condition is not None else ():
            for operand in parts(part.operand) if isinstance(part, Predicate) else ():
                if isinstance(operand, ContextRef) and operand.default is None:
                    message = f"a trigger fires without a request, so nothing passes the value `{operand.name}`"
                    hint = "give it a `default`, or read a feature or an event"
                    self.problems.append(Diagnostic("context-in-trigger", part.span, message, hint))
        return condition

    def _cap(self, node: Node) -> Cap:
        keys = keys_of(node, "cap", ("max", "per"))
        return Cap(count(keys.entry("max").value, MAX_CAP, "cap"), _duration_or_ever(keys.entry("per").value))

    def _quiet_hours(self, node: Node) -> QuietHours:
        keys = keys_of(node, "quiet_hours", ("from", "to", "timezone"), ("policy",))
        start, end = (_time_of_day(keys.entry(key).value) for key in ("from", "to"))
        if start == end:
            hint = "leave `quiet_hours` out, or give the hours that are quiet"
            raise Refusal("empty-quiet-hours", keys.entry("to").value, "the quiet hours end where they begin", hint)
        zone, default = self._zone(keys.entry("timezone").value)
        policy = QuietPolicy.DEFER
        if "policy" in keys:
            policy = QuietPolicy(_choice(keys.entry("policy").value, [choice.value for choice in QuietPolicy]))
        return QuietHours(start, end, zone, policy, default)

    def _zone(self, node: Node) -> tuple[str | FeatureRef, str | None]:
        """Return a zone or the feature that names it, and the zone of those whose feature names none."""
        if not isinstance(node, MappingNode) or "default" not in node:
            return self._conditions.timezone(node, bare_feature=True), None
        keys = keys_of(node, "timezone", ("feature", "default"))
        feature = self._conditions.timezone(keys.entry("feature").value, bare_feature=True)
        if not isinstance(feature, FeatureRef):
            raise Refusal("invalid-reference", keys.entry("feature").value, f"`{feature}` is a zone, and no feature")
        default = self._conditions.timezone(keys.entry("default").value)
        assert isinstance(default, str)
        return feature, default

    def _consent(self, node: Node) -> Consent | None:
        name = string_value(node, "the name of a consent")
        consents = self._scope.consent
        if name not in consents:
            hint = nearest(name, consents) or (f"there are {listing(consents)}" if consents else None)
            hint = hint or f"say in the `project:` document where it stands: `consent: {{{name}: VIEW:FEATURE}}`"
            raise Refusal("unknown-consent", node, f"there is no consent `{name}`", hint)
        feature = consents[name]
        return None if feature is None else Consent(name, feature)

    def _payload(self, node: Node, event: str | None) -> tuple[tuple[str, PayloadValue], ...]:
        return payload(node, self._conditions, self.problems, event)

    # --- what it sends, and where -----------------------------------------------------------------------------------

    def _send(self, node: Node) -> tuple[SinkRef, ...]:
        if not isinstance(node, Items):
            hint = "write e.g. `send: [{stream: actions}]`"
            raise Refusal("wrong-shape", node, f"`send` takes a list of sinks, not {describe(node)}", hint)
        if not node.items:
            raise Refusal("empty-list", node, "`send` is empty, so the trigger would do nothing", "name a sink")
        sinks: dict[SinkRef, Node] = {}
        for item in node.items:
            sink = self._collected(self._sink, item)
            if sink in sinks:
                message = f"`{sink}` stands there already, at line {sinks[sink].span.line}"
                self.problems.append(Diagnostic("duplicate-sink", item.span, message, "remove one of them"))
            elif sink is not None:
                sinks[sink] = item
        return tuple(sinks)

    def _sink(self, node: Node) -> SinkRef:
        if not isinstance(node, MappingNode) or len(node.entries) != 1:
            hint = "write e.g. `{stream: actions}` or `{webhook: crm}`"
            raise Refusal("wrong-shape", node, f"a sink is a mapping of one key, not {describe(node)}", hint)
        entry = node.entries[0]
        if entry.key == STREAM:
            return SinkRef(STREAM, self._stream(entry.value))
        if entry.key not in sink_kinds():
            kinds = (STREAM, *sink_kinds())
            hint = nearest(entry.key, kinds) or f"there are {listing(kinds)}"
            raise at_key("unknown-key", entry, f"there is no sink of the kind `{entry.key}`", hint)
        return SinkRef(entry.key, self._configured(entry, entry.key))

    def _stream(self, node: Node) -> str:
        name = string_value(node, "the name of a sink")
        if not NAME.match(name):
            hint = "write small letters, digits and underscores, starting with a letter, at most 63"
            raise Refusal("invalid-name", node, f"`{name}` cannot be the name of a stream", hint)
        return name

    def _configured(self, entry: Entry, kind: str) -> str:
        name = string_value(entry.value, "the name of a sink")
        sinks = self._scope.sinks
        if name not in sinks:
            hint = nearest(name, sinks) or (f"there are {listing(sinks)}" if sinks else None)
            example = f"`sinks: {{{name}: {{{kind}: ...}}}}`"
            hint = hint or f"configure it in the `project:` document: {example}"
            raise Refusal("unknown-sink", entry.value, f"there is no sink `{name}`", hint)
        configured = sinks[name]
        if configured is not None and configured != kind:
            hint = f"write `{{{configured}: {name}}}`"
            raise Refusal("unknown-sink", entry.value, f"`{name}` is a {configured}, not a {kind}", hint)
        return name


#: The greatest cap, as the instants at which a trigger fired are kept with the entity.
MAX_CAP = 1_000

#: The greatest priority; the least is as far below 0.
MAX_PRIORITY = 1_000


def _event_hint(key: str) -> str | None:
    if key in ("within", "count"):
        return "a trigger looks at each event alone: for a number of events write a segment, and `on_enter`"
    return None


def _choice(node: Node, choices: list[str]) -> str:
    value = string_value(node, f"one of {listing(choices)}")
    if value not in choices:
        raise Refusal(
            "invalid-choice", node, f"there is no `{value}` here", nearest(value, choices) or listing(choices)
        )
    return value


def _duration_or_ever(node: Node) -> int:
    return EVER if isinstance(node, Scalar) and node.value == "ever" else duration(node)


def _time_of_day(node: Node) -> int:
    text = str(node.value) if isinstance(node, Scalar) else describe(node)
    try:
        return parse_time_of_day(text)
    except ValueError as error:
        raise Refusal("invalid-time-of-day", node, str(error)) from None
