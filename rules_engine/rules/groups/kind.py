"""Describes the ``group:`` document: segments that exclude each other, in their order of precedence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.definitions.source import Items, Node, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import NO_SPAN, Diagnostic, Span
from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.document import DocumentKind, Scope
from rules_engine.rules.nodes import AllOf, AnyOf, Not, Segment
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.schema_parts import JsonSchema

#: The most segments of a group: the conditions of a segment are those of all before it too.
MAX_SEGMENTS = 50

_ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "Segments that exclude each other: everybody is in the first that holds.",
    "required": ["group", "exclusive"],
    "additionalProperties": False,
    "properties": {
        "group": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The group's name: small letters, digits and underscores.",
        },
        "description": {"type": "string", "description": "What the group divides, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "exclusive": {
            "x-kind": "segment_order",
            "description": "The segments; each goes before those after it.",
        },
    },
}
_ORDER: JsonSchema = {
    "type": "array",
    "items": {"$ref": "#/definitions/segment_name"},
    "minItems": 2,
    "maxItems": MAX_SEGMENTS,
    "uniqueItems": True,
}


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that exclude each other, in their order of precedence."""

    name: str
    order: tuple[str, ...]
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


def _parse(document: MappingNode, scope: Scope) -> Group | None:
    node = document.get("exclusive")
    if node is None:
        return None
    before = len(scope.problems)
    order: tuple[str, ...] = ()
    try:
        order = tuple(_order(node, scope))
    except Refusal as refusal:
        scope.problems.append(refusal.diagnostic)
    if len(scope.problems) > before:
        return None
    plain = {entry.key: to_plain(entry.value) for entry in document if entry.key != "exclusive"}
    return Group(
        plain["group"],
        order,
        plain.get("description", ""),
        plain.get("owner", ""),
        tuple(plain.get("tags", ())),
        document.span,
    )


def _order(node: Node, scope: Scope) -> Iterator[str]:
    """Yield the names; problems of single ones are collected."""
    if not isinstance(node, Items) or not 2 <= len(node.items) <= MAX_SEGMENTS:
        message = f"`exclusive` lists 2 to {MAX_SEGMENTS} segments, the one that takes precedence first"
        raise Refusal("wrong-shape", node, message, "write e.g. `exclusive: [champions, loyal, lapsed]`")
    parser = ConditionParser(scope.catalog, scope.segments)
    places: dict[str, Node] = {}
    for item in node.items:
        try:
            name = parser.segment_name(item)
        except Refusal as refusal:
            scope.problems.append(refusal.diagnostic)
            continue
        if name in places:
            message = f"`{name}` stands there already, at line {places[name].span.line}"
            scope.problems.append(Diagnostic("duplicate-segment", item.span, message, "remove one of them"))
        else:
            places[name] = item
            yield name


def _check(groups: Mapping[str, Group]) -> list[Diagnostic]:
    """Return a problem for each segment that is in a second group."""
    problems = []
    first: dict[str, str] = {}
    for group in groups.values():
        for name in group.order:
            if name in first:
                message = f"`{name}` is in the group `{first[name]}` already"
                hint = "a segment is in one group: remove it from the other"
                problems.append(Diagnostic("several-groups", group.span, message, hint))
            first.setdefault(name, group.name)
    return problems


def with_precedence(segments: Mapping[str, Segment], groups: Iterable[Group]) -> dict[str, Segment]:
    """Return the segments, those in a group without whoever is in one before them.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate
    >>> spend, visits = (Predicate(FeatureRef("user", name), "at_least", 5) for name in ("spend", "visits"))
    >>> segments = {"buyers": Segment("buyers", spend), "visitors": Segment("visitors", visits)}
    >>> group = Group("lifecycle", ("buyers", "visitors"))
    >>> with_precedence(segments, [group])["visitors"].when == AllOf((visits, Not(AnyOf((spend,)))))
    True
    """
    result = dict(segments)
    for group in groups:
        order = [name for name in group.order if name in segments]
        for place, name in enumerate(order[1:], 1):
            own = segments[name]
            before = tuple(segments[other].when for other in order[:place])
            when = AllOf((own.when, Not(AnyOf(before, own.span), own.span)), own.span)
            result[name] = replace(own, when=when, group=group.name, after=tuple(order[:place]))
    return result


GROUP = DocumentKind(
    name="group",
    envelope=_ENVELOPE,
    parse=_parse,
    check=_check,
    schema=lambda _parts: {"segment_order": _ORDER},
    encode=lambda groups: encode_part("groups", groups),
    decode=lambda definitions: decode_part("groups", definitions, (Group,)),
    plan_parts={"groups": "groups"},
)
