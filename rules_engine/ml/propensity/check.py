"""Read ``feature_repo/models.yaml``, and refuse what cannot work, with its place and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rules_engine.clock import parse_duration, parse_instant
from rules_engine.definitions.envelope import check_schema
from rules_engine.definitions.source import Items, Node, Scalar, from_plain, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.errors import DefinitionError
from rules_engine.folders import Project
from rules_engine.ml.definition_file import DefinitionFile
from rules_engine.ml.filled_view import SCORES
from rules_engine.ml.propensity.definition import FILE, MAX_REQUEST_NODES, ModelDefinition, nodes_of, split
from rules_engine.ml.propensity.schema import SCHEMA
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.nodes import EventAggregate, Predicate
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.types import Kind

_EXAMPLE = (
    "write e.g. `model: purchase_propensity`, `target: {new_row: orders, within: 90d}`, `features: [VIEW:NAME, ...]`, "
    "`cuts: {every: 30d, count: 12}`, `baseline: {recency: VIEW:NAME, frequency: VIEW:NAME}`"
)

_JSON_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
}


def load_model_definitions(
    project: Project, catalog: Catalog, segments: Collection[str] | None = None
) -> dict[str, ModelDefinition]:
    """Return every definition of the project's ``models.yaml``, by name.

    Parameters
    ----------
    catalog
        the features and events that there are.
    segments
        the names of the segments that there are; None leaves populations unchecked.

    Raises
    ------
    ProjectError
        if there is no such file.
    DefinitionError
        with every problem in it.
    """
    return _DEFINITIONS.load(project, lambda document: _problems(document, catalog, segments))


def definitions_of(
    documents: list[Node], catalog: Catalog, segments: Collection[str] | None, problems: list[Diagnostic]
) -> dict[str, ModelDefinition]:
    """Return the definitions of documents that were read, by name.

    Raises
    ------
    DefinitionError
        with every problem, those that were met in reading among them.
    """
    return _DEFINITIONS.checked(documents, problems, lambda document: _problems(document, catalog, segments))


_DEFINITIONS = DefinitionFile(
    file=FILE,
    purpose="what is to be predicted",
    example=_EXAMPLE,
    code="duplicate-model",
    build=ModelDefinition.from_plain,
)


def event_match(target: Mapping[str, Any], catalog: Catalog) -> EventAggregate:
    """Return what a target of events counts, with its ``where`` checked and converted.

    Raises
    ------
    DefinitionError
        if the event or a property is no longer there.
    """
    parser = ConditionParser(catalog)
    condition = parser.condition(from_plain(dict(target)))
    if not isinstance(condition, Predicate) or not isinstance(condition.operand, EventAggregate):
        raise DefinitionError(parser.problems)
    return condition.operand


def resolved(schema: Any, value: Any) -> Any:
    """Return the schema with each ``anyOf`` replaced by the choice that is meant, so that messages are about that one.

    >>> resolved({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}, [])
    {'type': 'array', 'minItems': 1}
    """
    if "anyOf" in schema:
        fitting = [choice for choice in schema["anyOf"] if isinstance(value, _JSON_TYPES[choice["type"]])]
        return resolved(fitting[0] if fitting else schema["anyOf"][-1], value)
    result = dict(schema)
    if isinstance(value, dict) and "properties" in schema:
        result["properties"] = {
            key: resolved(inner, value[key]) if key in value else inner for key, inner in schema["properties"].items()
        }
    if isinstance(value, list) and "items" in schema:
        result["prefixItems"] = [resolved(schema["items"], item) for item in value]
        del result["items"]
    return result


def _problems(document: Node, catalog: Catalog, segments: Collection[str] | None) -> list[Diagnostic]:
    problems = check_schema(document, resolved(SCHEMA, to_plain(document)))
    if problems or not isinstance(document, MappingNode):
        return problems
    check = _Check(document, catalog, segments)
    check.run()
    return check.problems


class _Check:
    """Checks of one document beyond its schema, which it follows."""

    def __init__(self, document: MappingNode, catalog: Catalog, segments: Collection[str] | None) -> None:
        self._document = document
        self._plain = to_plain(document)
        self._catalog = catalog
        self._segments = segments
        self._name = str(self._plain["model"])
        self.problems: list[Diagnostic] = []

    def run(self) -> None:
        if problem := SCORES.problem(self._name, self._catalog.types_of(self._name)):
            self._say("wrong-view", self._document.entry("model").value, problem, SCORES.hint(self._name))
        self._target()
        self._features()
        baseline = self._document.entry("baseline").value
        assert isinstance(baseline, MappingNode)
        for key in ("recency", "frequency"):
            self._number(baseline.entry(key).value)
        subgroups = self._document.get("subgroups")
        for node in subgroups.items if isinstance(subgroups, Items) else ():
            self._feature(node)
        self._population()
        self._cuts()
        if self._plain.get("at_request"):
            self._at_request()

    def _say(self, code: str, node: Node, message: str, hint: str | None = None) -> None:
        self.problems.append(Diagnostic(code, node.span, message, hint))

    # --- names -------------------------------------------------------------------------------------------------------

    def _feature(self, node: Node) -> Feature | None:
        assert isinstance(node, Scalar)
        key = str(node.value)
        feature = self._catalog.features.get(key)
        if feature is None:
            hint = nearest(key, self._catalog.features) or f"there are {listing(self._catalog.features)}"
            self._say("unknown-feature", node, f"there is no feature `{key}`", hint)
            return None
        if feature.view == self._name:
            self._say("own-score", node, f"`{key}` is what this model writes", "use other features")
            return None
        if feature.type is None or feature.type.is_list or feature.type.kind is Kind.BYTES:
            message = f"a model looks at numbers, truths, strings and times, and `{key}` is {feature.feast_type}"
            self._say("feature-type", node, message, "make a feature of such a type out of it")
            return None
        return feature

    def _number(self, node: Node) -> None:
        feature = self._feature(node)
        if feature is not None and feature.type is not None and not feature.type.kind.is_number:
            message = f"recency and frequency are numbers, and `{feature.key}` is {feature.type}"
            self._say(
                "feature-type", node, message, "use an Int or Float feature, such as days since the last purchase"
            )

    def _features(self) -> None:
        items = self._document.entry("features").value
        assert isinstance(items, Items)
        seen: set[str] = set()
        for item in items.items:
            node = item.entry("feature").value if isinstance(item, MappingNode) else item
            feature = self._feature(node)
            if feature is None:
                continue
            if feature.key in seen:
                self._say("duplicate-feature", node, f"`{feature.key}` is listed twice", "remove one of them")
            seen.add(feature.key)
            kind = feature.type.kind if feature.type else None
            scaled = isinstance(item, MappingNode) and to_plain(item).get("scale") == "log"
            if scaled and not (kind is not None and (kind.is_number or kind is Kind.TIME)):
                self._say(
                    "scale-type", item, f"`{feature.key}` is {feature.type}, which has no logarithm", "remove `scale`"
                )

    def _population(self) -> None:
        node = self._document.get("population")
        if node is None or self._segments is None:
            return
        name = str(self._plain["population"])
        if name not in self._segments:
            hint = nearest(name, self._segments) or f"there are {listing(self._segments)}"
            self._say("unknown-segment", node, f"there is no segment `{name}`", hint)

    # --- what is predicted -------------------------------------------------------------------------------------------

    def _target(self) -> None:
        node = self._document.entry("target").value
        assert isinstance(node, MappingNode)
        target = self._plain["target"]
        if "did" in target:
            parser = ConditionParser(self._catalog)
            parser.condition(node)
            self.problems += parser.problems
            return
        if "where" in target:
            self._say("where-of-rows", node.entry("where").value, "`where` is about events", "use `did: EVENT`")
        views = {feature.view for feature in self._catalog.features.values()}
        view = target["new_row"]
        if view == self._name:
            self._say(
                "own-score", node.entry("new_row").value, f"`{view}` is what this model writes", "name another view"
            )
        elif view not in views:
            hint = nearest(view, views) or f"there are {listing(sorted(views))}"
            self._say("unknown-view", node.entry("new_row").value, f"there is no feature view `{view}`", hint)
        self._duration(node.entry("within").value)

    def _duration(self, node: Node) -> int | None:
        assert isinstance(node, Scalar)
        try:
            return parse_duration(str(node.value))
        except ValueError as error:
            self._say("bad-duration", node, str(error))
            return None

    # --- when --------------------------------------------------------------------------------------------------------

    def _cuts(self) -> None:
        node = self._document.entry("cuts").value
        if isinstance(node, MappingNode):
            every = self._duration(node.entry("every").value)
            cuts = None if every is None else [step * every for step in range(self._plain["cuts"]["count"])]
        else:
            assert isinstance(node, Items)
            cuts = self._listed(node)
        if cuts is None:
            return
        test_cuts = self._plain.get("test_cuts", 1)
        at = self._document.get("test_cuts") or node
        if test_cuts >= len(cuts):
            self._say(
                "no-training-cut", at, f"all {len(cuts)} cuts are for the test", "list more cuts, or test on fewer"
            )
            return
        try:
            horizon = parse_duration(self._plain["target"]["within"])
        except ValueError:
            return  # told already
        if not split(cuts, test_cuts, horizon)[0]:
            message = "no cut is a whole horizon before the first test cut, so there is nothing to learn from"
            self._say("no-training-cut", at, message, "begin earlier, or test on fewer cuts, or shorten the horizon")

    def _listed(self, node: Items) -> list[int] | None:
        cuts: list[int] = []
        for item in node.items:
            assert isinstance(item, Scalar)
            try:
                cut = parse_instant(str(item.value))
            except ValueError as error:
                self._say("bad-instant", item, str(error))
                return None
            if cuts and cut <= cuts[-1]:
                self._say(
                    "cut-order", item, f"`{item.value}` is not after the cut before it", "list the earliest first"
                )
                return None
            cuts.append(cut)
        return cuts

    def _at_request(self) -> None:
        node = self._document.entry("at_request").value
        if "population" in self._document:
            message = "a score within a request is for everyone who is asked for, and this model is for a population"
            hint = "remove one of them; a segment can ask for the population and the score together"
            self._say("population-at-request", node, message, hint)
        for name, parameters in ModelDefinition.from_plain(
            {**self._plain, "cuts": {"every": "1d", "count": 2}, "target": {"new_row": "x", "within": "1d"}}
        ).grid():
            nodes = nodes_of(name, parameters)
            if nodes > MAX_REQUEST_NODES:
                shown = ", ".join(f"{key}: {value:g}" for key, value in parameters.items())
                message = (
                    f"{name} with {shown} can have {nodes:,} nodes; within a request {MAX_REQUEST_NODES:,} are the most"
                )
                self._say(
                    "too-large-for-requests", node, message, "try smaller trees, or fewer, or remove `at_request`"
                )
                return
