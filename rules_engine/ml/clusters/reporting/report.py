"""A report on a fit, for people who want to use the clusters: who they are, how sure that is, what changed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rules_engine.clock import format_instant
from rules_engine.ml.clusters.fitting import Fit, matrix
from rules_engine.ml.clusters.matching import Matching
from rules_engine.ml.clusters.model import Cluster, ClusterModel
from rules_engine.ml.clusters.reporting import pictures
from rules_engine.ml.clusters.stability import DOUBTFUL
from rules_engine.ml.report.page import Block, Note, Page, PageTable, Section

_WHAT = {
    "split": "split: its users are now in several clusters",
    "merged": "merged: several clusters became this one",
    "born": "new",
    "died": "gone",
    "renamed": "has another name",
}


def report(model: ClusterModel, fit: Fit, before: ClusterModel | None, frame: pd.DataFrame) -> Page:
    """Return the report on a fit.

    Parameters
    ----------
    model
        the model with its labels and its version, if it got one.
    fit
        what the model was made of.
    before
        the version before, if there is one.
    frame
        the users' features, to say who moved.

    Raises
    ------
    MissingExtraError
        if matplotlib is not installed.
    """
    fit = Fit(model, fit.points, _reordered(model, fit))
    page = Page(
        f"{model.definition.name} {model.version or '(not stored)'}", _lead(model), _facts(model), _footer(model)
    )
    _fill(page.section("The clusters", "Who is in them, and what sets them apart."), [
        *_doubts(model), pictures.sizes(model), pictures.stability(model), pictures.heat_map(model), _profiles(model),
    ])  # fmt: skip
    _fill(page.section("A map of all users"), [pictures.map_of_users(model, fit)])
    if model.matching is not None and before is not None:
        _add_movers(page, model, model.matching, before, frame)
    _fill(page.section("How sure this is", _why(model)), [
        pictures.silhouettes(model, fit), pictures.curves(model), pictures.dendrogram(model, fit), _scores(model),
    ])  # fmt: skip
    _fill(page.section("How it was made"), [_method(model)])
    return page


def _fill(section: Section, blocks: list[Block | None]) -> None:
    section.add(*(block for block in blocks if block is not None))


def _reordered(model: ClusterModel, fit: Fit) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the fitted users' clusters in the order of the labelled model, which may differ from the fit's."""
    order = [cluster.position for cluster in fit.model.clusters]
    places = {cluster.position: at for at, cluster in enumerate(model.clusters)}
    return np.array([*(places[position] for position in order), -1], dtype=np.int64)[fit.clusters]


def _lead(model: ClusterModel) -> str:
    largest = max(model.clusters, key=lambda cluster: cluster.size)
    text = f"{model.users:,} users fall into {len(model.clusters)} groups by {len(model.features)} features. "
    return text + f"The largest is “{largest.label}”, with {largest.size / model.users:.0%}."


def _facts(model: ClusterModel) -> dict[str, str]:
    facts = {"users": f"{model.population:,}", "clusters": str(len(model.clusters)), "as of": _day(model.as_of)}
    if model.score.silhouette is not None:
        facts["silhouette"] = f"{model.score.silhouette:.2f}"
    if model.has_outliers:
        facts["in no cluster"] = f"{model.metrics['outliers']:.1%}"
    if model.matching is not None:
        facts[f"moved since {model.matching.previous}"] = f"{model.matching.share_moved:.1%}"
    return facts


def _footer(model: ClusterModel) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in model.libraries.items())
    checksum = f" Checksum of the model: {model.checksum}." if model.checksum else ""
    return f"Fitted with {libraries}. Data: {model.data}.{checksum}"


def _doubts(model: ClusterModel) -> list[Block | None]:
    doubtful = [
        f"{cluster.number} “{cluster.label}”"
        for cluster in model.clusters
        if cluster.stability is not None and cluster.stability < DOUBTFUL
    ]
    text = f"Not stable, so do not build on it: {', '.join(doubtful)}. Other users might not show it."
    return [Note(text, is_warning=True)] if doubtful else []


def _profiles(model: ClusterModel) -> PageTable:
    headers = ["cluster", "name", "users", *(feature.partition(":")[2].replace("_", " ") for feature in model.features)]

    def row(cluster: Cluster) -> list[str]:
        means = [pictures.number(cluster.profile[feature]) for feature in model.features]
        return [str(cluster.number), cluster.label, f"{cluster.size:,}", *means]

    right = [headers[0], *headers[2:]]
    return PageTable(
        headers, [row(cluster) for cluster in model.clusters], right, "Means of the users in each cluster."
    )


def _add_movers(page: Page, model: ClusterModel, matching: Matching, before: ClusterModel, frame: pd.DataFrame) -> None:
    lead = (
        f"{matching.moved:,} of {matching.users:,} users ({matching.share_moved:.1%}) are in another cluster than in "
        f"{matching.previous}. Agreement of both groupings (adjusted Rand index): {matching.rand_index:.2f}, where 1 "
        "is the same and 0 is chance."
    )
    section = page.section(f"What changed since {matching.previous}", lead)
    if set(before.features) <= set(frame.columns) and matching.users:
        values, old_values = (matrix(frame.loc[:, list(m.features)]) for m in (model, before))
        both = model.usable(values) & before.usable(old_values)
        old, new = before.assign(old_values[both]).position, model.assign(values[both]).position
        section.add(pictures.movers(before, model, old, new))
    if matching.changes:
        rows = [
            [f"{change.number} {change.label}", _WHAT[change.kind], _others(change.others)]
            for change in matching.changes
        ]
        section.add(PageTable(["cluster", "what happened", "its users"], rows))
    else:
        section.add(Note("Every cluster of the version before is still there, with the same name and number."))


def _others(shares: object) -> str:
    assert isinstance(shares, dict)
    return ", ".join(f"{label} ({share:.0%})" for label, share in shares.items())


def _why(model: ClusterModel) -> str:
    method = model.definition.method
    if method.finds_k:
        return (
            f"{method.algorithm} itself finds how many clusters there are, and leaves who is alone out of all of them."
        )
    return f"From {method.k_from} to {method.k_to} clusters were tried; {method.choose_by.replace('_', '-')} decided."


def _scores(model: ClusterModel) -> PageTable:
    def shown(value: float | None, digits: str) -> str:
        return "-" if value is None else format(value, digits)

    rows = [
        [
            str(score.k) + (" (chosen)" if at == model.chosen else ""),
            shown(score.silhouette, ".3f"),
            shown(score.davies_bouldin, ".3f"),
            shown(score.inertia, ",.0f"),
            shown(score.bic, ",.0f"),
        ]
        for at, score in enumerate(model.scores)
    ]
    headers = ["clusters", "silhouette", "Davies-Bouldin", "squared distances", "BIC"]
    columns = 5 if model.score.bic is not None else 4
    return PageTable(headers[:columns], [row[:columns] for row in rows], headers[1:])


def _setting(value: object) -> str:
    """Return a setting as it is written in the definition, without the brackets around its parts.

    >>> _setting({"from": 2, "to": 10}), _setting("kmeans")
    ('from: 2, to: 10', 'kmeans')
    """
    return ", ".join(f"{key}: {part}" for key, part in value.items()) if isinstance(value, Mapping) else str(value)


def _method(model: ClusterModel) -> PageTable:
    definition = model.definition
    rows = [[key, _setting(value)] for key, value in definition.method.to_plain().items()]
    rows.append(["missing", definition.missing])
    if model.preprocessing.projection is not None:
        shares = model.preprocessing.projection.shares
        rows.append(["principal components", f"{len(shares)}, with {shares.sum():.0%} of the variance"])
    rows += [[feature.feature, f"scale: {feature.scale}"] for feature in definition.features]
    rows.append(["users fitted", f"{model.users:,} of {model.population:,}; {model.left_out:,} lack a feature"])
    if model.window is not None:
        rows.append(["rows of", " to ".join(_day(instant) for instant in model.window)])
    rows.append(["assignment agrees with the algorithm", f"{model.metrics['agreement']:.1%} of the users"])
    return PageTable(["setting", "value"], rows)


def _day(instant: int) -> str:
    return format_instant(instant).removesuffix("T00:00:00Z")
