"""Parses a condition in YAML: resolves every name, and checks every literal against its operand's type.

All problems are collected. A condition with a problem gives None, and its siblings are still parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from rules_engine.definitions.source import Items, Mapping, Node
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.arithmetic import Operation
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.forms import CLOCKS, FORMS, Form, Shape
from rules_engine.rules.local_time import find_zone
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    SegmentRef,
    Sequence,
)
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.parsing.arguments import convert_argument
from rules_engine.rules.parsing.constants import constant_problem
from rules_engine.rules.parsing.counting import calculation_in, did_any, distinct_days, first_time, nth
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, describe, infer_type, literal
from rules_engine.rules.parsing.operand_checks import (
    at_key,
    boolean_option,
    check_operator,
    single_operator,
    string_value,
    unknown_key,
)
from rules_engine.rules.parsing.right_sides import RightSides
from rules_engine.rules.parsing.shares import share
from rules_engine.rules.parsing.sides import Left, is_side, two_sided
from rules_engine.rules.types import FLOAT, INTEGER, STRING, Kind, ValueType


class ConditionParser:
    """Parses conditions against a catalog; ``problems`` collects what is wrong.

    Parameters
    ----------
    catalog
        the features and events that may be named.
    segments
        the names of all segments, or None to leave references unchecked.

    >>> from rules_engine.definitions.source import from_plain
    >>> parser = ConditionParser(Catalog(closed=False))
    >>> parser.condition(from_plain({"feature": "user:country", "equal": "NO"})) is None
    True
    >>> parser.problems[0].code, parser.problems[0].hint
    ('unknown-operator', 'did you mean `equals`?')
    """

    def __init__(self, catalog: Catalog, segments: Collection[str] | None = None) -> None:
        self._catalog = catalog
        self._segments = segments
        self.problems: list[Diagnostic] = []
        self.events = EventParser(catalog, self.problems)
        self._right = RightSides(self.feature, self.events)
        self.events.values = self._right.values
        self._parsers: dict[Shape, Callable[[Mapping, Form], Condition | None]] = {
            Shape.CONDITIONS: self._group,
            Shape.CONDITION: self._negation,
            Shape.FEATURE: self._feature,
            Shape.NAME: self._context,
            Shape.CLOCK: self._clock,
            Shape.SHARE: self._sample,
            Shape.EVENT: self._did,
            Shape.EVENT_PROPERTY: self._aggregate,
            Shape.FIRST_EVENT: self._first_time,
            Shape.NTH_EVENT: self._nth,
            Shape.EVENTS: self._did_any,
            Shape.TERMS: self._calculation,
            Shape.EVENT_DAYS: self._distinct_days,
            Shape.STEPS: self._sequence,
            Shape.SEGMENT: self._segment,
        }

    def condition(self, node: Node) -> Condition | None:
        """Return the tree of one condition, or None if it or a part of it was refused."""
        try:
            parsed = self._condition(node)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None
        if parsed is None:
            return None
        problem = constant_problem(parsed, node.span)
        if problem:
            self.problems.append(problem)
            return None
        return parsed

    def _condition(self, node: Node) -> Condition | None:
        if not isinstance(node, Mapping):
            raise Refusal("wrong-shape", node, f"a condition is expected here, not {describe(node)}", _forms_hint())
        heads = [entry for entry in node if entry.key in FORMS]
        if not heads:
            raise _no_form(node)
        if len(heads) > 1:
            message = f"`{heads[0].key}` and `{heads[1].key}` cannot stand in one condition"
            raise at_key("several-forms", heads[1], message, "make two conditions of them, inside `all:` or `any:`")
        form = FORMS[heads[0].key]
        self._check_keys(node, form)
        return self._parsers[form.shape](node, form)

    def _check_keys(self, node: Mapping, form: Form) -> None:
        keys = form.keys
        for entry in node:
            if entry.key in keys or (form.takes_operator and entry.key in OPERATORS):
                continue
            raise unknown_key(entry, form)
        for key in form.required:
            if key not in node:
                raise Refusal("missing-key", node, f"`{form.head}` needs `{key}`", f"for example `{form.example}`")

    # --- groups and references --------------------------------------------------------------------------------------

    def _group(self, node: Mapping, form: Form) -> Condition | None:
        value = node.entry(form.head).value
        if not isinstance(value, Items):
            raise Refusal("wrong-shape", value, f"`{form.head}` takes a list of conditions, not {describe(value)}")
        if not value.items:
            raise Refusal(
                "empty-list", value, f"`{form.head}` is empty, and would match everyone or nobody", "list a condition"
            )
        parsed = [self.condition(item) for item in value.items]
        conditions = tuple(condition for condition in parsed if condition is not None)
        if len(conditions) < len(parsed):
            return None
        if form.head == "all":
            return AllOf(conditions, node.span)
        either = AnyOf(conditions, node.span)
        return either if form.head == "any" else Not(either, node.span)

    def _negation(self, node: Mapping, form: Form) -> Condition | None:
        inner = self.condition(node.entry(form.head).value)
        return Not(inner, node.span) if inner is not None else None

    def _segment(self, node: Mapping, form: Form) -> Condition:
        value = node.entry(form.head).value
        reference = SegmentRef(self.segment_name(value), value.span)
        return reference if form.head == "in_segment" else Not(reference, node.span)

    def segment_name(self, node: Node) -> str:
        """Return the name of a segment that exists.

        Raises
        ------
        Refusal
            if there is none of that name.
        """
        name = string_value(node, "the name of a segment")
        if self._segments is not None and name not in self._segments:
            hint = nearest(name, self._segments) or f"there are {listing(self._segments)}"
            raise Refusal("unknown-segment", node, f"there is no segment `{name}`", hint)
        return name

    # --- predicates -------------------------------------------------------------------------------------------------

    def _feature(self, node: Mapping, form: Form) -> Condition | None:
        operand, value_type = self.feature(node.entry(form.head).value)
        return self._predicate(node, form, operand, value_type)

    def feature(self, node: Node) -> tuple[Operand, ValueType | None]:
        """Return the operand that `VIEW:NAME` refers to, and its type, if one is known.

        Raises
        ------
        Refusal
            if there is no such feature, or rules cannot read it.
        """
        text = string_value(node, "a feature, `VIEW:NAME`")
        view, colon, name = text.partition(":")
        if not (view and colon and name):
            close = [key for key in self._catalog.features if key.endswith(f":{text}")]
            hint = (
                f"did you mean `{close[0]}`?"
                if close
                else "write the feature view's name before a colon, e.g. `user:country`"
            )
            raise Refusal("invalid-reference", node, f"`{text}` is not `VIEW:NAME`", hint)
        if view == EVENT_VIEW and name in self._catalog.event_features:
            aggregate = self._catalog.event_features[name]
            return aggregate, aggregate.type
        feature = self._catalog.features.get(text)
        if feature is None and self._catalog.closed:
            raise Refusal("unknown-feature", node, f"there is no feature `{text}`", self._feature_hint(text, view))
        if feature is not None and feature.type is None:
            message = f"rules cannot read `{text}`, which is of the Feast type {feature.feast_type}"
            raise Refusal("operator-type", node, message, "make a feature of a plain type from it")
        return FeatureRef(view, name), feature.type if feature else None

    def _feature_hint(self, text: str, view: str) -> str:
        features = [*self._catalog.features, *(f"{EVENT_VIEW}:{name}" for name in self._catalog.event_features)]
        name = text.removeprefix(f"{view}:")
        siblings = [key for key in features if key.startswith(f"{view}:")]
        elsewhere = [key for key in features if key.endswith(f":{name}")]
        if not siblings:  # the view is misspelt, or another view has the name
            views = {key.split(":")[0] for key in features}
            return nearest(text, elsewhere or features) or f"the feature views are {listing(views)}"
        # Compared without the view, which all siblings share and which would make any name look similar.
        if nearest(name, [key.removeprefix(f"{view}:") for key in siblings]):
            return nearest(text, siblings) or f"`{view}` has {listing(siblings)}"
        return f"did you mean `{elsewhere[0]}`?" if elsewhere else f"`{view}` has {listing(siblings)}"

    def _context(self, node: Mapping, form: Form) -> Condition | None:
        name = string_value(node.entry(form.head).value, "the name of a context value")
        default = node.entry("default").value if "default" in node else None
        return self._predicate(node, form, ContextRef(name), None, default)

    def _clock(self, node: Mapping, form: Form) -> Condition | None:
        value = node.entry(form.head).value
        name = string_value(value, "`time_of_day` or `day_of_week`")
        if name not in CLOCKS:
            hint = nearest(name, CLOCKS) or "write `time_of_day` or `day_of_week`"
            raise Refusal("invalid-choice", value, f"there is no clock `{name}`", hint)
        field = ClockField(name)
        kind = Kind.TIME_OF_DAY if field is ClockField.TIME_OF_DAY else Kind.DAY_OF_WEEK
        zone = self.timezone(node.entry("timezone").value) if "timezone" in node else "UTC"
        return self._predicate(node, form, ClockRef(field, zone), ValueType(kind))

    def _sample(self, node: Mapping, form: Form) -> Condition:
        hundredths, seed = share(node.entry(form.head).value, form.head)
        return Predicate(BucketRef(seed), "less_than", hundredths, INTEGER, span=node.span)

    def timezone(self, node: Node, bare_feature: bool = False) -> str | FeatureRef:
        """Return the named zone, or the feature with its name; with ``bare_feature`` also written as `VIEW:NAME`.

        Raises
        ------
        Refusal
            if there is no such zone or feature, or the feature is no string.
        """
        if isinstance(node, Mapping):
            if "feature" not in node or len(node.entries) != 1:
                raise Refusal("wrong-shape", node, "a time zone is an IANA name, or `{feature: VIEW:NAME}`")
            return self._timezone_feature(node.entry("feature").value)
        name = string_value(node, "an IANA time zone, or `{feature: VIEW:NAME}`")
        if ":" in name and bare_feature:
            return self._timezone_feature(node)
        if ":" in name and name in self._catalog.features:
            raise Refusal("invalid-timezone", node, f"`{name}` is a feature", f"write `timezone: {{feature: {name}}}`")
        if find_zone(name) is None:
            from zoneinfo import available_timezones

            hint = nearest(name, available_timezones()) or "write an IANA name, e.g. `Europe/Oslo`"
            raise Refusal("invalid-timezone", node, f"there is no time zone `{name}`", hint)
        return name

    def _timezone_feature(self, reference: Node) -> FeatureRef:
        operand, value_type = self.feature(reference)
        if not isinstance(operand, FeatureRef) or value_type not in (None, STRING):
            raise Refusal(
                "operator-type", reference, f"a time zone is a string, and `{operand}` is of type {value_type}"
            )
        return operand

    def _predicate(
        self,
        node: Mapping,
        form: Form,
        operand: Operand,
        value_type: ValueType | None,
        default: Node | None = None,
    ) -> Predicate | None:
        entry = single_operator(node, form.keys, f"`{form.head}`")
        operator = check_operator(entry, operand, value_type)
        if isinstance(operand, FeatureRef | ContextRef | EventAggregate) and is_side(operator, entry.value):
            if isinstance(operand, ContextRef) and default is not None:
                operand = ContextRef(operand.name, _default(default, value_type))
            return two_sided(Left(operand, value_type, node), entry, self._right.values, self._right.typed)
        ignore_case = boolean_option(node, "ignore_case", operator, value_type)
        or_missing = boolean_option(node, "or_missing", operator)
        value_type = value_type or infer_type(operator, entry.value)
        argument = convert_argument(operator, entry.value, value_type, ignore_case)
        if isinstance(operand, ContextRef) and default is not None:
            operand = ContextRef(operand.name, _default(default, value_type))
        return Predicate(operand, operator.name, argument, value_type, ignore_case, or_missing, node.span)

    # --- events -----------------------------------------------------------------------------------------------------

    def _did(self, node: Mapping, form: Form) -> Condition | None:
        return self.events.did(node, negated=form.head == "did_not")

    def _aggregate(self, node: Mapping, form: Form) -> Condition | None:
        aggregate = self.events.aggregate(node, form.head)
        return None if aggregate is None else self._compared(node, form, aggregate)

    def _compared(self, node: Mapping, form: Form, aggregate: EventAggregate) -> Condition | None:
        entry = single_operator(node, form.keys, f"`{form.head}`")
        operator = check_operator(entry, aggregate, aggregate.type)
        if aggregate.of_type is None and aggregate.type is None and not isinstance(entry.value, Mapping):
            aggregate = self.events.with_type(aggregate, infer_type(operator, entry.value))
        return self._predicate(node, form, aggregate, aggregate.type)

    def _did_any(self, node: Mapping, _form: Form) -> Condition | None:
        return did_any(self.events, node)

    def _calculation(self, node: Mapping, form: Form) -> Condition | None:
        calculation = calculation_in(node, Operation(form.head), self._right)
        entry = single_operator(node, form.keys, f"`{form.head}`")
        if isinstance(entry.value, Mapping):
            hint = "write one `difference` or `ratio` of both, and compare it with a number"
            raise Refusal("wrong-shape", entry.value, f"`{form.head}` is compared with a number", hint)
        return None if calculation is None else self._predicate(node, form, calculation, FLOAT)

    def _first_time(self, node: Mapping, _form: Form) -> Condition | None:
        return first_time(self.events, node)

    def _nth(self, node: Mapping, form: Form) -> Condition | None:
        aggregate = nth(self.events, node)
        return None if aggregate is None else self._compared(node, form, aggregate)

    def _distinct_days(self, node: Mapping, form: Form) -> Condition | None:
        aggregate = distinct_days(self.events, node)
        return None if aggregate is None else self._predicate(node, form, aggregate, aggregate.type)

    def _sequence(self, node: Mapping, _form: Form) -> Sequence | None:
        return self.events.sequence(node)


def _default(node: Node, value_type: ValueType | None) -> object:
    if value_type is not None and value_type.is_list:
        if not isinstance(node, Items):
            raise Refusal("literal-type", node, f"the default is a list, not {describe(node)}")
        return tuple(literal(item, ValueType(value_type.kind), False) for item in node.items)
    return literal(node, value_type, False)


def _no_form(node: Mapping) -> Refusal:
    for entry in node:
        hint = nearest(entry.key, FORMS)
        if hint:
            return at_key("unknown-key", entry, f"there is no condition `{entry.key}`", hint)
    return Refusal("unknown-form", node, "this is no condition: none of its keys says what it looks at", _forms_hint())


def _forms_hint() -> str:
    return f"a condition starts with one of {', '.join(FORMS)}"
