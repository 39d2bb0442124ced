"""Check a document of kind ``clusters:``, and show each problem at its place."""

from __future__ import annotations

from collections.abc import Mapping

from rules_engine.definitions.envelope import check_schema
from rules_engine.definitions.source import Items, Node, Scalar, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.ml.clusters.algorithms.table import DEFAULT, algorithms, known_by
from rules_engine.ml.clusters.schema import schema
from rules_engine.ml.filled_view import LABELS
from rules_engine.rules.catalog import Catalog

#: How far apart the ends of a range must be for it to have an elbow.
_ELBOW = 2


def problems(document: Node, catalog: Catalog) -> list[Diagnostic]:
    """Return every problem of a document of kind ``clusters:``."""
    diagnostics = check_schema(document, schema())
    if diagnostics or not isinstance(document, MappingNode):
        return diagnostics
    features = document.entry("features").value
    assert isinstance(features, Items)
    seen: dict[str, Scalar] = {}
    for item in features.items:
        assert isinstance(item, MappingNode)
        node = item.entry("feature").value
        assert isinstance(node, Scalar)
        diagnostics += _feature_problems(node, seen, str(document.entry("clusters").value.value), catalog)  # type: ignore[union-attr]
        seen[str(node.value)] = node
    return (
        diagnostics
        + _view_problems(document.entry("clusters").value, catalog)
        + _order_problems(document.get("order_by"), seen)
        + _k_problems(document.get("k"))
        + _method_problems(document, len(features.items))
        + _name_problems(document.get("names"))
    )


def _view_problems(node: Node, catalog: Catalog) -> list[Diagnostic]:
    name = str(node.value) if isinstance(node, Scalar) else ""
    problem = LABELS.problem(name, catalog.types_of(name))
    return [Diagnostic("wrong-view", node.span, problem, LABELS.hint(name))] if problem else []


def _feature_problems(node: Scalar, seen: Mapping[str, Scalar], view: str, catalog: Catalog) -> list[Diagnostic]:
    key = str(node.value)
    feature = catalog.features.get(key)
    if feature is None:
        hint = nearest(key, catalog.features) or f"there are {listing(catalog.features)}"
        return [Diagnostic("unknown-feature", node.span, f"there is no feature `{key}`", hint)]
    if key in seen:
        return [Diagnostic("duplicate-feature", node.span, f"`{key}` is listed twice", "remove one of them")]
    if feature.view == view:
        return [Diagnostic("own-label", node.span, f"`{key}` is what these clusters write", "group by other features")]
    if feature.type is None or feature.type.is_list or not feature.type.kind.is_number:
        message = f"users are grouped by numbers, and `{key}` is {feature.type or feature.feast_type}"
        return [Diagnostic("feature-type", node.span, message, "use an Int or Float feature")]
    return []


def _order_problems(node: Node | None, features: Mapping[str, Scalar]) -> list[Diagnostic]:
    if not isinstance(node, Scalar) or node.value in features:
        return []
    hint = nearest(str(node.value), features) or f"one of {listing(features)}"
    return [Diagnostic("unknown-feature", node.span, f"`{node.value}` is not among the clusters' features", hint)]


def _k_problems(node: Node | None) -> list[Diagnostic]:
    if node is None:
        return []
    k = to_plain(node)
    if k["from"] <= k["to"]:
        return []
    message = f"from {k['from']} to {k['to']} is no range"
    return [Diagnostic("empty-range", node.span, message, f"write {{from: {k['to']}, to: {k['from']}}}")]


def _name_problems(node: Node | None) -> list[Diagnostic]:
    diagnostics: list[Diagnostic] = []
    seen: set[object] = set()
    for item in node.items if isinstance(node, Items) else ():
        assert isinstance(item, MappingNode)
        for key, what in (("cluster", "number"), ("label", "name")):
            value = item.entry(key).value
            assert isinstance(value, Scalar)
            if (key, value.value) in seen:
                message = f"two clusters cannot have the {what} `{value.value}`"
                diagnostics.append(Diagnostic("duplicate-name", value.span, message, "change one of them"))
            seen.add((key, value.value))
    return diagnostics


def _method_problems(document: MappingNode, features: int) -> list[Diagnostic]:
    """Return keys that the algorithm does not know, and choices that cannot be made."""
    content = {entry.key: to_plain(entry.value) for entry in document.entries}
    algorithm = content.get("algorithm", DEFAULT)
    diagnostics = []
    for entry in document.entries:
        if algorithm not in known_by(entry.key):
            message = f"`{algorithm}` has no `{entry.key}`"
            hint = f"remove it, or choose an algorithm that has: {listing(known_by(entry.key))}"
            diagnostics.append(Diagnostic("not-for-algorithm", entry.key_span, message, hint))
    if diagnostics:
        return diagnostics
    choice = document.get("choose_by")
    if choice is not None and content["choose_by"] == "bic" and not algorithms()[algorithm].has_likelihood:
        hint = "write `algorithm: gaussian_mixture`, or choose by silhouette, davies_bouldin or elbow"
        diagnostics.append(
            Diagnostic("no-likelihood", choice.span, "only a mixture has a likelihood, which bic is about", hint)
        )
    k = content.get("k", {"from": 3, "to": 8})
    if choice is not None and content["choose_by"] == "elbow" and k["to"] - k["from"] < _ELBOW:
        where = document.get("k") or choice
        message = "an elbow needs at least three numbers of clusters"
        diagnostics.append(
            Diagnostic("no-elbow", where.span, message, "let `k` reach farther, or choose by silhouette")
        )
    return diagnostics + _pca_problems(document.get("pca"), features)


def _pca_problems(pca: Node | None, features: int) -> list[Diagnostic]:
    if not isinstance(pca, MappingNode):
        return []
    content = to_plain(pca)
    if content.get("components", 1) > features:
        message = f"{features} features have no {content['components']} components"
        hint = f"write {features} or less"
        return [Diagnostic("too-many-components", pca.entry("components").value.span, message, hint)]
    if "variance" in content and float(content["variance"].rstrip("%")) == 0:
        hint = "write e.g. `variance: 90%`"
        return [
            Diagnostic("no-variance", pca.entry("variance").value.span, "nothing would be left of the features", hint)
        ]
    return []
