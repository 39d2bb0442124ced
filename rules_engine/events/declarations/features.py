"""Named windowed features of an event: ``{count, within: 24h}``, ``{sum: amount, within: 30d, where: {...}}``.

They are the aggregates of conditions, in fewer words because the event is known: the language's own parser reads them.
"""

from __future__ import annotations

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.nodes import EventAggregate
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key

FUNCTIONS = tuple(function.value for function in Aggregate)
OPTIONS = ("within", "where")


def mentioned(node: Mapping) -> set[str]:
    """Return the names of properties that stand in a feature, so that a problem with one of them is not told twice."""
    named = {str(to_plain(entry.value)) for entry in node if entry.key in FUNCTIONS}
    return named | _keys_in(node.get("where"))


def _keys_in(node: Node | None) -> set[str]:
    """Return every key inside a node."""
    if isinstance(node, Items):
        return set().union(*(_keys_in(item) for item in node.items))
    entries = node.entries if isinstance(node, Mapping) else ()
    return {entry.key for entry in entries}.union(*(_keys_in(entry.value) for entry in entries))


def parse_feature(node: Mapping, event: Entry, catalog: Catalog, problems: list[Diagnostic]) -> EventAggregate | None:
    """Return the aggregate that a feature of an event is; None after a problem, which is added to ``problems``."""
    try:
        function = _function(node)
        parser = EventParser(catalog, problems)
        if function.key == Aggregate.COUNT.value:
            return _count(node, function, event, parser)
        return parser.aggregate(_as_aggregate(node, function, event), function.key)
    except Refusal as refusal:
        problems.append(refusal.diagnostic)
        return None


def _function(node: Mapping) -> Entry:
    """Return the one function in a feature, after checking the keys beside it."""
    functions = [entry for entry in node if entry.key in FUNCTIONS]
    for entry in node:
        if entry.key not in (*FUNCTIONS, *OPTIONS):
            hint = nearest(entry.key, (*FUNCTIONS, *OPTIONS)) or f"there can be {listing((*FUNCTIONS, *OPTIONS))}"
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place in a feature", hint)
    if not functions:
        hint = "for example `{count, within: 24h}` or `{sum: amount, within: 30d}`"
        raise Refusal("missing-key", node, f"a feature needs one of {', '.join(FUNCTIONS)}", hint)
    if len(functions) > 1:
        message = f"`{functions[0].key}` and `{functions[1].key}` cannot stand in one feature"
        raise at_key("several-forms", functions[1], message, "make two features of them")
    if "within" not in node:
        raise Refusal("missing-key", node, "a feature needs `within`: how far it looks back", "add e.g. `within: 24h`")
    return functions[0]


def _count(node: Mapping, function: Entry, event: Entry, parser: EventParser) -> EventAggregate | None:
    value = function.value
    if not isinstance(value, Scalar) or value.value not in (None, True):
        raise Refusal(
            "wrong-shape", value, f"`count` takes nothing, not {describe(value)}", "write `{count, within: ...}`"
        )
    did = parser.did(_mapping(node, _event_entry("did", event), *_options(node, "within", "where")), negated=False)
    if did is None:
        return None
    assert isinstance(did.operand, EventAggregate), did
    return did.operand


def _as_aggregate(node: Mapping, function: Entry, event: Entry) -> Mapping:
    """Return the feature as a condition would write it."""
    of = Entry("of", function.key_span, function.value)
    inner = _mapping(function.value, _event_entry("event", event), of, *_options(node, "where"))
    return _mapping(node, Entry(function.key, function.key_span, inner), *_options(node, "within"))


def _options(node: Mapping, *keys: str) -> list[Entry]:
    return [node.entry(key) for key in keys if key in node]


def _event_entry(key: str, event: Entry) -> Entry:
    return Entry(key, event.key_span, Scalar(event.key, event.key_span))


def _mapping(at: Node, *entries: Entry) -> Mapping:
    return Mapping(entries, at.span)
