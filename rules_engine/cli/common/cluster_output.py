"""The output of `segments cluster`."""

from __future__ import annotations

from typing import Any

from rules_engine.cli.common.output import say, table, warn
from rules_engine.cli.common.versions import Pages
from rules_engine.clock import format_instant
from rules_engine.ml.clusters.choosing import KScore
from rules_engine.ml.clusters.labelling.attach import Attached
from rules_engine.ml.clusters.matching import ClusterChange, Matching
from rules_engine.ml.clusters.model import CLUSTERS, Cluster, ClusterModel
from rules_engine.ml.clusters.stability import DOUBTFUL
from rules_engine.ml.versions.store import VersionStore

#: By measure, how it is said that it chose.
_CHOSEN_BY = {
    "silhouette": "silhouette",
    "davies_bouldin": "the Davies-Bouldin index",
    "elbow": "the elbow of the squared distances",
    "bic": "the Bayesian information criterion",
}
#: By measure, the score's attribute that is shown, and its digits.
_SHOWN = {
    "silhouette": ("silhouette", ".3f"),
    "davies_bouldin": ("davies_bouldin", ".3f"),
    "elbow": ("inertia", ",.0f"),
    "bic": ("bic", ",.0f"),
}


def show_fit(model: ClusterModel, *, is_new: bool = True) -> None:
    """Print a model: how the number of clusters was chosen, and who is in them."""
    left_out = f", {model.left_out:,} left out because a feature is missing" if model.left_out else ""
    drawn = f" of {model.population:,}" if model.population > model.users + model.left_out else ""
    version = model.version or "(not stored)"
    unchanged = "" if is_new or not model.version else " (the same as before)"
    say(
        f"{model.definition.name} {version}{unchanged}: ",
        f"{model.users:,}{drawn} users as of {day(model.as_of)}{left_out}",
    )
    say(_chosen(model))
    say()
    clusters = model.clusters
    stable = any(cluster.stability is not None for cluster in clusters)
    headers = ["cluster", "label", "users", "share", *(["stability"] if stable else [])]
    rows = [
        [*row, *([_decimal(cluster.stability)] if stable else [])]
        for cluster in clusters
        for row in [_row(model, cluster)]
    ]
    if model.has_outliers:
        share = model.metrics["outliers"]
        rows.append(["0", "outlier", f"{round(share * model.users):,}", f"{share:.1%}", *([""] if stable else [])])
    table(headers, rows, right=["cluster", "users", "share", "stability"])
    say()
    numbers = [str(cluster.number) for cluster in clusters]
    means = [[key, *(f"{cluster.profile[key]:,.1f}" for cluster in clusters)] for key in model.features]
    table(["mean in cluster", *numbers], means, right=numbers)
    if model.matching:
        show_matching(model.matching)


def _row(model: ClusterModel, cluster: Cluster) -> list[str]:
    return [str(cluster.number), cluster.label, f"{cluster.size:,}", f"{cluster.size / model.users:.1%}"]


def _chosen(model: ClusterModel) -> str:
    method = model.definition.method
    if method.finds_k:
        radius = f" within {model.metrics['eps']:.3g}" if "eps" in model.metrics else ""
        silhouette = f", silhouette {_decimal(model.score.silhouette)}" if model.score.silhouette is not None else ""
        dense = f" ({method.settings['min_users']} users{radius})" if "min_users" in method.settings else ""
        return f"{len(model.clusters)} clusters, found by {method.algorithm}{dense}{silhouette}"
    tried = ", ".join(f"{score.k}: {measure(score, method.choose_by)}" for score in model.scores)
    return f"{len(model.clusters)} clusters, chosen by {_CHOSEN_BY[method.choose_by]} ({tried})"


def measure(score: KScore, choose_by: str) -> str:
    """Return the measure that chooses, of one number of clusters."""
    name, digits = _SHOWN[choose_by]
    value = getattr(score, name)
    return "-" if value is None else format(value, digits)


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def warn_of_doubt(model: ClusterModel) -> None:
    """Name clusters that other users would not show, and an assignment that is not the algorithm's own."""
    for cluster in model.clusters:
        if cluster.stability is not None and cluster.stability < DOUBTFUL:
            warn(
                f"cluster {cluster.number} `{cluster.label}` is not stable ({cluster.stability:.2f}, and "
                f"{DOUBTFUL} is doubtful): among other users it might not be found"
            )
    agreement = model.metrics["agreement"]
    if agreement < 0.95:
        warn(
            f"{1 - agreement:.1%} of the users get another cluster than {model.definition.method.algorithm} put them "
            "into, as labels go by the nearest centre"
        )


def warn_of_names(model: ClusterModel) -> None:
    """Warn of names in clusters.yaml for clusters that do not exist."""
    numbers = {cluster.number for cluster in model.clusters}
    for number, label in model.definition.names:
        if number not in numbers:
            warn(f"clusters.yaml names cluster {number} `{label}`, and there is none")


def show_matching(matching: Matching) -> None:
    """Print what became of the clusters of the version before."""
    say()
    if not matching.users and not matching.by_center:
        say(f"No user can be compared with {matching.previous}: every cluster is new")
        return
    say(
        f"Since {matching.previous}: {matching.moved:,} of {matching.users:,} users ({matching.share_moved:.1%}) "
        f"are in another cluster, adjusted Rand index {matching.rand_index:.3f}"
    )
    if matching.overlap:
        overlaps = ", ".join(f"{number}: {overlap:.0%}" for number, overlap in matching.overlap.items())
        say(f"Kept, with the users in both forms as a share of those in either: {overlaps}")
    if matching.by_center:
        say(f"Kept because of where they lie, with too few users to compare: {', '.join(map(str, matching.by_center))}")
    if matching.changes:
        table(["change", "cluster", "label", "users"], map(change_row, matching.changes), right=["cluster"])


#: Before the shares of a change's users.
_DIRECTIONS = {"born": "were in", "merged": "were in", "died": "now in", "split": "now in", "renamed": "was"}


def change_row(change: ClusterChange) -> list[str]:
    """Return what became of a cluster, as a row."""
    shares = [f"{label} ({share:.0%})" for label, share in change.others.items()]
    if change.kind == "renamed":
        shares = list(change.others)
    shown = f"{_DIRECTIONS[change.kind]} {'; '.join(shares)}" if shares else ""
    return [change.kind, str(change.number), change.label, shown]


def show_attached(model: ClusterModel, attached: Attached, as_of: int) -> None:
    """Print what attaching did."""
    say(
        f"{model.definition.name} {model.version}: labels for {attached.users:,} users as of {day(as_of)}, "
        f"{attached.added:,} of them new or changed"
    )
    if attached.moved:
        say(f"{attached.moved:,} users have another label than before")
    if attached.left_out:
        say(f"{attached.left_out:,} users have none, because a feature of theirs is missing")
    if attached.outliers:
        say(f"{attached.outliers:,} users are outliers: far from everyone in their cluster, or in none")
    say()
    rows = [[label, f"{size:,}", f"{size / attached.users:.1%}"] for label, size in attached.sizes.items()]
    table(["label", "users", "share"], rows, right=["users", "share"])


def attached_data(model: ClusterModel, attached: Attached, as_of: int) -> dict[str, Any]:
    """Return what attaching did, as JSON data."""
    return {
        "clusters": model.definition.name,
        "model_version": model.version,
        "as_of": format_instant(as_of),
        "users": attached.users,
        "left_out": attached.left_out,
        "added": attached.added,
        "moved": attached.moved,
        "outliers": attached.outliers,
        "sizes": attached.sizes,
    }


_HEADERS = ["version", "fitted", "as of", "algorithm", "k", "silhouette", "users", "moved", "checksum"]


def version_row(model: ClusterModel) -> list[str]:
    """Return a version, as a row of the list."""
    silhouette = model.score.silhouette
    return [
        model.version,
        format_instant(model.created_at)[:16].replace("T", " "),
        day(model.as_of),
        model.definition.method.algorithm,
        str(len(model.clusters)),
        "-" if silhouette is None else f"{silhouette:.3f}",
        f"{model.users:,}",
        f"{model.matching.share_moved:.1%}" if model.matching else "",
        model.checksum.removeprefix("sha256:")[:12],
    ]


def version_data(model: ClusterModel, store: VersionStore[ClusterModel]) -> dict[str, Any]:
    """Return a version, for JSON."""
    report = store.report(model.version)
    return {
        "version": model.version,
        "created_at": format_instant(model.created_at),
        "as_of": format_instant(model.as_of),
        "algorithm": model.definition.method.algorithm,
        "k": len(model.clusters),
        "silhouette": model.score.silhouette,
        "users": model.users,
        "population": model.population,
        "previous": model.matching.previous if model.matching else None,
        "share_moved": model.matching.share_moved if model.matching else None,
        "checksum": model.checksum,
        "attached": model.version == store.attached(),
        "promoted": model.version == store.promoted(),
        "report": str(report) if report.exists() else None,
    }


def show_comparison(first: ClusterModel, second: ClusterModel) -> None:
    """Print two versions side by side."""
    facts = [(name, _facts(first)[name], _facts(second)[name]) for name in _facts(first)]
    table(["", first.version, second.version], [list(fact) for fact in facts])
    say()
    both = {cluster.number: cluster.label for model in (second, first) for cluster in model.clusters}
    rows = []
    for number in sorted(both):
        of_number = [next((each for each in m.clusters if each.number == number), None) for m in (first, second)]
        labels = list(dict.fromkeys(cluster.label for cluster in of_number if cluster))
        shares = [f"{c.size / m.users:.1%}" if c else "-" for c, m in zip(of_number, (first, second), strict=True)]
        rows.append([str(number), " -> ".join(labels), *shares])
    table(["cluster", "label", first.version, second.version], rows, right=["cluster", first.version, second.version])
    if second.matching and second.matching.previous == first.version:
        show_matching(second.matching)


def _facts(model: ClusterModel) -> dict[str, str]:
    method, score = model.definition.method, model.score
    window = "-" if model.window is None else " to ".join(day(instant) for instant in model.window)
    return {
        "as of": day(model.as_of),
        "rows of": window,
        "users": f"{model.users:,} of {model.population:,}",
        "algorithm": method.algorithm,
        "clusters": str(len(model.clusters)),
        "silhouette": "-" if score.silhouette is None else f"{score.silhouette:.3f}",
        "Davies-Bouldin": "-" if score.davies_bouldin is None else f"{score.davies_bouldin:.3f}",
        "least stability": _decimal(
            min((c.stability for c in model.clusters if c.stability is not None), default=None)
        ),
        "outliers": f"{model.metrics['outliers']:.1%}",
        "features": str(len(model.features)),
        "scikit-learn": model.libraries.get("scikit-learn", "-"),
        "checksum": model.checksum.removeprefix("sha256:")[:12],
    }


def day(instant: int) -> str:
    """Return an instant, without the time if that is midnight."""
    return format_instant(instant).removesuffix("T00:00:00Z")


def _compared_data(first: ClusterModel, second: ClusterModel, store: VersionStore[ClusterModel]) -> Any:
    return [{**version_data(model, store), **model.content()} for model in (first, second)]


PAGES = Pages(
    kind=CLUSTERS,
    headers=_HEADERS,
    right=_HEADERS[4:8],
    row=version_row,
    data=version_data,
    show=show_fit,
    compare=show_comparison,
    compared_data=_compared_data,
    after_promotion=lambda _project: None,
    next_step="Next: `segments cluster attach` gives every user its labels",
)
