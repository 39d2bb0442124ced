"""A ``decision:`` document to its node: names are resolved, weights checked, and all problems collected."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.decisions.nodes import Decision, ExperimentRef, Rule, Serve, Served, Split, Variant
from rules_engine.rules.document import Scope
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import PARTS, check_name, keys_of
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.parsing.operand_checks import at_key, string_value
from rules_engine.rules.parsing.weights import fractions, percent

#: The most variants, and rules, of a decision, and the longest value as JSON text.
MAX_VARIANTS, MAX_RULES, MAX_VALUE = 100, 200, 16_384

_TYPES: dict[type, str] = {
    bool: "boolean",
    str: "string",
    int: "number",
    float: "number",
    dict: "object",
    list: "array",
}

_T = TypeVar("_T")


def parse_decision(document: Mapping, scope: Scope) -> Decision | None:
    """Return the decision of a document, or None if a part of it was refused.

    >>> from rules_engine.definitions.source import from_plain
    >>> from rules_engine.rules.catalog import Catalog
    >>> scope = Scope(Catalog(closed=False))
    >>> variants = {"on": {"value": True}, "off": {"value": False}}
    >>> text = {"decision": "banner", "variants": variants, "rules": [{"serve": "onn"}], "default": "off"}
    >>> parse_decision(from_plain(text), scope) is None
    True
    >>> scope.problems[0].code, scope.problems[0].hint
    ('unknown-variant', 'did you mean `on`?')
    """
    parser = _DecisionParser(scope)
    decision = parser.decision(document)
    scope.problems += parser.problems
    return decision


class _DecisionParser:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._conditions = ConditionParser(scope.catalog, scope.segments)
        self._variants: dict[str, Variant | None] = {}
        self._name = ""
        self.problems = self._conditions.problems

    def decision(self, document: Mapping) -> Decision | None:
        before = len(self.problems)
        name = document.get("decision")
        self._name = str(to_plain(name)) if name is not None else ""
        if name is not None and self._name in self._scope.segments:
            message = f"there is a segment `{self._name}` too, and callers ask for both by name"
            self.problems.append(Diagnostic("duplicate-decision", name.span, message, "rename one of them"))
        variants = document.get("variants")
        if isinstance(variants, Mapping):
            self._read_variants(variants)
        default = self._collected(self._variant, document.get("default"))
        rules = [self._collected(self._rule, node) for node in _items(document.get("rules"))]
        if len(self.problems) > before or default is None or variants is None:
            return None
        plain = {entry.key: to_plain(entry.value) for entry in document if entry.key in ("public", *PARTS)}
        return Decision(
            self._name,
            tuple(variant for variant in self._variants.values() if variant is not None),
            tuple(rule for rule in rules if rule is not None),
            default,
            self._type(),
            description=plain.get("description", ""),
            owner=plain.get("owner", ""),
            tags=tuple(plain.get("tags", ())),
            public=plain.get("public", False),
            span=document.span,
        )

    def _collected(self, parse: Callable[[Node], _T | None], node: Node | None) -> _T | None:
        if node is None:
            return None
        try:
            return parse(node)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    # --- variants ---------------------------------------------------------------------------------------------------

    def _read_variants(self, variants: Mapping) -> None:
        types: dict[str, Entry] = {}
        for entry in variants:
            self._variants[entry.key] = None
            try:
                check_name(entry, "a variant")
                value = keys_of(entry.value, entry.key, ("value",)).entry("value").value
                self._variants[entry.key] = Variant(entry.key, _json(value))
                kind = type_of(to_plain(value))
                if kind is not None and types and kind not in types:
                    first, at = next(iter(types.items()))
                    message = f"this value is {_an(kind)}, and that of `{at.key}` is {_an(first)}"
                    hint = "callers ask for values of one type: make them alike, or null"
                    raise Refusal("value-type", value, message, hint)
                if kind is not None:
                    types[kind] = entry
            except Refusal as refusal:
                self.problems.append(refusal.diagnostic)

    def _type(self) -> str:
        kinds = [type_of(variant.value) for variant in self._variants.values() if variant is not None]
        return next((kind for kind in kinds if kind is not None), "object")

    def _variant(self, node: Node) -> str:
        name = string_value(node, "the name of a variant")
        if name not in self._variants:
            hint = nearest(name, self._variants) or f"there are {listing(self._variants)}"
            raise Refusal("unknown-variant", node, f"there is no variant `{name}`", hint)
        return name

    # --- rules ------------------------------------------------------------------------------------------------------

    def _rule(self, node: Node) -> Rule | None:
        keys = keys_of(node, "rules", (), ("when", "serve", "experiment", "seed"))
        outcomes = [key for key in ("serve", "experiment") if key in keys]
        if len(outcomes) != 1:
            which = "both" if outcomes else "neither"
            hint = "write e.g. `serve: VARIANT`, or name an `experiment`"
            raise Refusal("missing-key", node, f"a rule has `serve` or `experiment`, and this one has {which}", hint)
        serve = self._served(keys.entry(outcomes[0]))
        if "seed" in keys:
            serve = self._seeded(keys.entry("seed"), serve)
        if "when" not in keys:
            return None if serve is None else Rule(serve, span=node.span)
        when = self._conditions.condition(keys.entry("when").value)
        return None if serve is None or when is None else Rule(serve, when, node.span)

    def _served(self, entry: Entry) -> Served | None:
        try:
            return self._serve(entry.value) if entry.key == "serve" else self._experiment(entry.value)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _serve(self, node: Node) -> Served:
        if not isinstance(node, Mapping):
            return Serve(self._variant(node))
        if len(node.entries) < 2:
            raise Refusal("wrong-weights", node, "shares of one variant are no shares", "write `serve: VARIANT`")
        names, weights = [], []
        for entry in node:
            names.append(self._variant(Scalar(entry.key, entry.key_span)))
            weights.append(percent(entry.value, f"the weight of `{entry.key}`"))
        return Split(self._name, tuple(names), fractions(weights, node, "`serve`"))

    def _experiment(self, node: Node) -> Served | None:
        name = string_value(node, "the name of an experiment")
        experiments = self._scope.served
        if name not in experiments:
            hint = nearest(name, experiments) or (f"there are {listing(experiments)}" if experiments else None)
            hint = hint or f"write a document `experiment: {name}`"
            raise Refusal("unknown-experiment", node, f"there is no experiment `{name}`", hint)
        served = experiments[name]
        if served is None:
            return None
        for arm, variant in served.items():
            if variant not in self._variants:
                message = f"the arm `{arm}` of `{name}` serves `{variant}`, which is no variant here"
                hint = nearest(variant, self._variants) or f"there are {listing(self._variants)}"
                raise Refusal("unknown-variant", node, message, hint)
        return ExperimentRef(name)

    def _seeded(self, entry: Entry, serve: Served | None) -> Served | None:
        if serve is not None and not isinstance(serve, Split):
            raise at_key("unknown-key", entry, "`seed` has a meaning with weights only", "remove it")
        seed = string_value(entry.value, "a text")
        return None if serve is None else Split(seed, serve.variants, serve.weights)


def type_of(value: object) -> str | None:
    """Return the type of a value in JSON's words; None for null, which goes with every type.

    >>> type_of(1.5), type_of(True), type_of(None)
    ('number', 'boolean', None)
    """
    return _TYPES.get(type(value))


def _json(node: Node) -> str:
    text = json.dumps(to_plain(node), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if len(text) > MAX_VALUE:
        raise Refusal("too-large", node, f"a value has at most {MAX_VALUE:,} characters as JSON, and this has more")
    return text


def _an(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _items(node: Node | None) -> tuple[Node, ...]:
    return tuple(node.items) if isinstance(node, Items) else ()
