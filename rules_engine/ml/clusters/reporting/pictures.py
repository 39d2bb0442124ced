"""The pictures of a report on clusters: each one answers a question that a marketer asks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from rules_engine.ml.clusters.algorithms.agglomerative import Agglomerative, merges
from rules_engine.ml.clusters.arrays import Matrix, Positions
from rules_engine.ml.clusters.choosing import KScore
from rules_engine.ml.clusters.fitting import Fit
from rules_engine.ml.clusters.model import OUTLIER, ClusterModel
from rules_engine.ml.clusters.stability import DOUBTFUL, STABLE
from rules_engine.ml.report.page import Picture
from rules_engine.ml.report.pictures import GREY, INK, as_png, as_svg, colour, drawing

#: Inches, so that text is as large in all pictures.
_WIDE = 12
#: More points only hide each other.
_DOTS = 3000
_SILHOUETTES = 2000
_NAMES_ACROSS = 6
#: From here on, blue or red says no more.
_DEEP = 2.0
_LEAVES = 24


def named(model: ClusterModel, at: int, width: int = 30) -> str:
    """Return a cluster's number and name, broken into lines."""
    if at < 0:
        return OUTLIER
    cluster = model.clusters[at]
    return textwrap.fill(f"{cluster.number} {cluster.label}", width)


def _across(model: ClusterModel, positions: Sequence[int]) -> list[str]:
    """Return the clusters' names side by side; their numbers only, where names would not fit."""
    if len(positions) <= _NAMES_ACROSS:
        return [named(model, at, 110 // len(positions)) for at in positions]
    return [str(model.clusters[at].number) if at >= 0 else OUTLIER for at in positions]


def sizes(model: ClusterModel) -> Picture:
    """Draw the number of users of each cluster."""
    names = [named(model, at) for at in range(len(model.clusters))]
    shares = [cluster.size / model.users for cluster in model.clusters]
    colours = [colour(at) for at in range(len(names))]
    if model.has_outliers:
        names, shares, colours = [*names, OUTLIER], [*shares, model.metrics["outliers"]], [*colours, GREY]
    with drawing(6, 1.0 + 0.55 * len(names)) as (figure, axes):
        bars = axes.barh(names, shares, color=colours, height=0.7)
        axes.bar_label(bars, [f" {share:.1%}" for share in shares])
        axes.invert_yaxis()
        axes.set_xlim(0, max(shares) * 1.18)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)
        axes.set_title("Share of users")
        return Picture(as_svg(figure), "Bars: the share of all users in each cluster.")


def stability(model: ClusterModel) -> Picture | None:
    """Draw the stability of each cluster."""
    stabilities = [cluster.stability for cluster in model.clusters]
    if any(value is None for value in stabilities):
        return None
    names = [named(model, at) for at in range(len(stabilities))]
    values = [float(value or 0.0) for value in stabilities]
    with drawing(6, 1.0 + 0.55 * len(names)) as (figure, axes):
        bars = axes.barh(names, values, color=[colour(at) for at in range(len(names))], height=0.7)
        axes.bar_label(bars, [f" {value:.2f}" for value in values])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.14)
        axes.axvline(DOUBTFUL, color=INK, linestyle=":", linewidth=1)
        axes.axvline(STABLE, color=INK, linestyle="--", linewidth=1)
        axes.set_xticks([0, DOUBTFUL, STABLE, 1], ["0", f"{DOUBTFUL}\ndoubtful", f"{STABLE}\nstable", "1"])
        axes.set_title("Stability")
        caption = "How alike a cluster is when looked for among others. Left of the dotted line: do not rely on it."
        return Picture(as_svg(figure), "Bars: the stability of each cluster, from 0 to 1.", caption)


def heat_map(model: ClusterModel) -> Picture:
    """Draw the features that set each cluster apart, as a heat map."""
    centroids = np.array([cluster.centroid for cluster in model.clusters])
    weights = np.array([max(cluster.size, 1) for cluster in model.clusters], dtype=float)
    deviations = centroids - np.average(centroids, axis=0, weights=weights)
    names = _across(model, range(len(centroids)))
    labels = [feature.partition(":")[2].replace("_", " ") for feature in model.features]
    with drawing(_WIDE, 1.2 + 0.46 * len(labels)) as (figure, axes):
        axes.imshow(deviations.T, cmap="RdBu_r", vmin=-_DEEP, vmax=_DEEP, aspect="auto")
        axes.set_xticks(range(len(names)), names, fontsize=9)
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(labels)), labels)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for at, cluster in enumerate(model.clusters):
            for row, feature in enumerate(model.features):
                strong = abs(deviations[at, row]) > 0.7 * _DEEP
                shown = number(cluster.profile[feature])
                axes.text(at, row, shown, ha="center", va="center", fontsize=10, color="white" if strong else INK)
        caption = (
            "Red: more than the average user, blue: less; the deeper, the more unusual. "
            "The numbers are the cluster's means."
        )
        return Picture(as_svg(figure), "A heat map: each cluster's mean of each feature.", caption, wide=True)


def number(value: float) -> str:
    """Return a number with as many digits as tell something.

    >>> [number(value) for value in (12345.6, 123.4, 1.234, 0.0, 0.0123, 0.0004)]
    ['12,346', '123', '1.2', '0', '0.01', '<0.01']
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.1f}"
    return "<0.01" if 0 < value < 0.01 else f"{value:.2f}" if value else "0"


def map_of_users(model: ClusterModel, fit: Fit) -> Picture:
    """Draw a map of all users, by the two directions in which they differ most."""
    from sklearn.decomposition import PCA

    rows = _drawn(len(fit.points), _DOTS, model.definition.method.seed)
    if fit.points.shape[1] < 2:
        flat, shares = np.column_stack([fit.points[:, 0], np.zeros(len(fit.points))]), [1.0, 0.0]
    else:
        pca = PCA(2, svd_solver="full").fit(fit.points)
        flat, shares = pca.transform(fit.points), list(pca.explained_variance_ratio_)
    axis = _axes(model, flat, fit.points)
    with drawing(_WIDE, 6.6) as (figure, axes):
        for at in [-1, *range(len(model.clusters))]:
            own = rows[fit.clusters[rows] == at]
            if not len(own):
                continue
            shade = GREY if at < 0 else colour(at)
            axes.scatter(
                flat[own, 0], flat[own, 1], s=9, alpha=0.55, color=shade, linewidths=0, label=named(model, at, 34)
            )
            if at >= 0:
                center = flat[fit.clusters == at].mean(axis=0)
                text = str(model.clusters[at].number)
                box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": shade, "linewidth": 2}
                axes.annotate(text, center, ha="center", va="center", fontweight="bold", bbox=box)
        axes.set_xlabel(f"{axis[0]}: {shares[0]:.0%} of all differences between users")
        axes.set_ylabel(f"{axis[1]}: {shares[1]:.0%}")
        axes.set_xticklabels([])
        axes.set_yticklabels([])
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), markerscale=2.4, labelspacing=1.0)
        caption = f"Each dot is a user ({len(rows):,} of {len(flat):,}); who is near is alike. {_coverage(sum(shares))}"
        return Picture(as_png(figure), "A map of users, coloured by cluster.", caption, wide=True)


def _coverage(share: float) -> str:
    """Say how much of the differences between users two directions show."""
    if share > 0.995:
        return "All differences are shown."
    return f"Only {share:.0%} of the differences fit on paper, so clusters that overlap here may be apart elsewhere."


def _axes(model: ClusterModel, flat: Matrix, points: Matrix) -> list[str]:
    """Describe the two directions of the map by the features that go most with them."""
    names = ["first direction", "second direction"]
    if model.preprocessing.projection is not None:
        return names
    features = [feature.partition(":")[2].replace("_", " ") for feature in model.features]
    for at in range(2):
        along = flat[:, at] - flat[:, at].mean()
        together = np.abs((points - points.mean(axis=0)).T @ along)
        names[at] = f"mostly {' and '.join(features[column] for column in np.argsort(-together)[:2])}"
    return names


def silhouettes(model: ClusterModel, fit: Fit) -> Picture | None:
    """Draw the silhouettes: how clearly users belong to their clusters."""
    from sklearn.metrics import silhouette_samples

    inside = np.flatnonzero(fit.clusters >= 0)
    rows = inside[_drawn(len(inside), _SILHOUETTES, model.definition.method.seed)]
    clusters = fit.clusters[rows]
    if len(np.unique(clusters)) < 2:
        return None
    values = silhouette_samples(fit.points[rows], clusters)
    with drawing(_WIDE, 4.2) as (figure, axes):
        start, ticks = 0, []
        for at in range(len(model.clusters)):
            own = np.sort(values[clusters == at])[::-1]
            axes.fill_betweenx(np.arange(start, start + len(own)), 0, own, color=colour(at), linewidth=0)
            ticks.append(start + len(own) / 2)
            start += len(own) + len(rows) // 60
        mean = float(values.mean())
        axes.axvline(mean, color=INK, linestyle="--", linewidth=1)
        axes.set_yticks(ticks, [str(cluster.number) for cluster in model.clusters])
        axes.set_ylabel("cluster")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_title("How well users fit in")
        caption = (
            f"Silhouettes, one line for each user: 1 is deep inside the own cluster, 0 between two, below 0 nearer to "
            f"another one. The dashed line is the mean, {mean:.2f}."
        )
        return Picture(as_svg(figure), "Silhouettes of the users of each cluster.", caption, wide=True)


_CURVES = {
    "silhouette": ("Silhouette", "higher is better"),
    "davies_bouldin": ("Davies-Bouldin index", "lower is better"),
    "inertia": ("Squared distances", "look for the elbow"),
    "bic": ("Bayesian information criterion", "lower is better"),
}


def curves(model: ClusterModel) -> Picture | None:
    """Draw the measures for each number of clusters that was tried."""
    shown = [name for name in _CURVES if _is_measured(model.scores, name)]
    if len(model.scores) < 2 or not shown:
        return None
    chosen_by = {"elbow": "inertia"}.get(model.definition.method.choose_by, model.definition.method.choose_by)
    sizes = [score.k for score in model.scores]
    with drawing(_WIDE, 3.2, ncols=len(shown), squeeze=False) as (figure, rows):
        for axes, name in zip(rows[0], shown, strict=True):
            title, advice = _CURVES[name]
            decides = name == chosen_by
            axes.plot(
                sizes, [getattr(score, name) for score in model.scores], color=INK if decides else GREY, marker="o"
            )
            axes.plot(sizes[model.chosen], getattr(model.score, name), "o", color=colour(5), markersize=10)
            axes.set_title(title + (" (decides)" if decides else ""), fontsize=10.5)
            axes.set_xlabel(f"clusters; {advice}")
            axes.set_xticks(sizes if len(sizes) <= 10 else sizes[:: len(sizes) // 8 + 1])
        caption = (
            f"Each number of clusters, judged by several measures. {sizes[model.chosen]} was chosen, marked in red."
        )
        return Picture(as_svg(figure), "Curves of the measures by number of clusters.", caption, wide=True)


def _is_measured(scores: Sequence[KScore], name: str) -> bool:
    return all(getattr(score, name) is not None for score in scores)


def dendrogram(model: ClusterModel, fit: Fit) -> Picture | None:
    """Draw the tree of merges, for agglomerative clustering."""
    if model.definition.method.algorithm != Agglomerative.name:
        return None
    from scipy.cluster import hierarchy  # type: ignore[import-untyped]  # ships no types

    tree = merges(fit.points, model.definition.method.settings["linkage"])
    cut = _cut(tree, len(model.clusters))
    with drawing(_WIDE, 4.2) as (figure, axes):
        hierarchy.dendrogram(
            tree, p=_LEAVES, truncate_mode="lastp", color_threshold=0, above_threshold_color="#5a6675", ax=axes
        )
        axes.axhline(cut, color=colour(5), linestyle="--", linewidth=1.5)
        axes.grid(visible=False, axis="x")
        axes.tick_params(axis="x", labelrotation=0, labelsize=8)
        axes.set_ylabel("how unlike")
        caption = (
            f"From below, what is most alike merges first; numbers in parentheses are users. The dashed line cuts it "
            f"into the {len(model.clusters)} clusters: long lines above and below it say that the number fits."
        )
        return Picture(as_svg(figure), "A tree of merges, cut where the clusters are.", caption, wide=True)


def _cut(tree: Matrix, clusters: int) -> float:
    """Return the height at which the tree falls into so many clusters."""
    heights = tree[:, 2]
    below = heights[-clusters] if clusters <= len(heights) else 0.0
    return float((below + heights[-clusters + 1]) / 2)


def movers(before: ClusterModel, model: ClusterModel, old: Positions, new: Positions) -> Picture:
    """Draw where the users of each old cluster are now."""
    froms = [*range(len(before.clusters)), *([-1] if (old < 0).any() else [])]
    tos = [*range(len(model.clusters)), *([-1] if (new < 0).any() else [])]
    counts = np.array([[((old == row) & (new == column)).sum() for column in tos] for row in froms], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with drawing(_WIDE, 1.5 + 0.5 * len(froms)) as (figure, axes):
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        axes.set_xticks(range(len(tos)), _across(model, tos), fontsize=9)
        axes.set_yticks(range(len(froms)), [named(before, at, 34) for at in froms], fontsize=9)
        axes.xaxis.tick_top()
        axes.set_xlabel(f"now, in {model.version or 'the new fit'}")
        axes.xaxis.set_label_position("top")
        axes.set_ylabel(f"in {before.version}")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.0005:
                axes.text(column, row, f"{share:.1%}", ha="center", va="center", color="white" if share > 0.6 else INK)
        caption = (
            "Each row is a cluster of the version before: where its users are now. Off the darkest cells, users moved."
        )
        return Picture(as_svg(figure), "A table of moves between clusters.", caption, wide=True)


def _drawn(count: int, most: int, seed: int) -> Any:
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))
