"""`segments cluster`: find groups of users, and give every user the label of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.options import HERE, At, Format, OutputFormat, Repo, percent
from rules_engine.cli.output import print_json, remark, say, table, working
from rules_engine.clock import format_instant, now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.features.read_plan import ReadPlan
from rules_engine.project import Project

if TYPE_CHECKING:
    import pandas as pd

    from rules_engine.features.feast_repo import FeastRepo
    from rules_engine.ml.attach import Attached
    from rules_engine.ml.cluster_model import ClusterModel, ModelFolder
    from rules_engine.ml.matching import Change, Matching
    from rules_engine.ml.refit import Published

app = typer.Typer(
    no_args_is_help=True, help="Group users by their features; the labels are features too.", add_completion=False
)

Name = Annotated[
    str | None, typer.Argument(help="Which definition of feature_repo/clusters.yaml. Default: the only one.")
]


Stored = Annotated[str | None, typer.Argument(help="Which clusters. Default: the only ones that were fitted.")]


@app.command()
def fit(
    name: Name = None,
    at: At = None,
    max_moved: Annotated[
        float | None,
        typer.Option(
            "--max-moved",
            metavar="PERCENT",
            parser=percent,
            help="Refuse a model that moves more users to another cluster. Default: clusters.yaml's, else 20%.",
        ),
    ] = None,
    accept_drift: Annotated[
        bool, typer.Option("--accept-drift", help="Store the model however many users move.")
    ] = False,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Find groups of users as of an instant, and store the model.

    Features come point in time from Feast's offline store. k-means runs on standardized features for each number of
    clusters that clusters.yaml allows; the one with the best silhouette is kept. The model is a JSON file under
    .segments/models/. Fitting the same data again gives the same model, and no new version.

    A cluster that has most of its users in common with one of the version before keeps its number and its name. If too
    many users would move to another cluster, nothing is stored and the exit code is 1.
    """
    with working("Loading Feast"):
        from rules_engine.features.feast_repo import FeastRepo
        from rules_engine.ml import clusters
        from rules_engine.ml.attach import check_view
        from rules_engine.ml.cluster_model import ModelFolder
        from rules_engine.ml.definition import choose, load_cluster_definitions
        from rules_engine.ml.offline import features_as_of
        from rules_engine.ml.refit import publish

        project = Project.open(repo)
        feast = FeastRepo(project)
        definition = choose(load_cluster_definitions(project, feast.catalog()), name)
        check_view(feast, definition.name)
    plan = ReadPlan.load(project.read_plan)
    as_of = _instant(plan, at)
    with working("Reading features"):
        frame = features_as_of(feast, definition.keys, as_of)
    with working(f"Fitting {definition.k_from} to {definition.k_to} clusters to {len(frame):,} users"):
        model = clusters.fit(definition, frame, as_of)
    folder = ModelFolder(project, definition.name)
    with working("Matching with the version before"):
        found = publish(
            folder,
            model,
            frame,
            lambda features: _features_of_before(feast, features, as_of),
            now_micros(),
            max_moved=max_moved,
            accept_drift=accept_drift,
        )
    if output_format is Format.JSON:
        print_json(_fitted_data(folder, found))
    else:
        show_fit(found.model, found.is_new)
        _warn_of_names(found.model)
        _warn(plan, found.model)
    if found.refusal is not None:
        raise found.refusal
    if found.is_new and output_format is Format.TEXT:
        say("Next: `segments cluster attach` gives every user the label of a cluster")


def _features_of_before(feast: FeastRepo, features: Sequence[str], as_of: int) -> pd.DataFrame:
    """What the version before looks at, if it is still there."""
    from rules_engine.ml.offline import features_as_of

    gone = [feature for feature in features if feature not in feast.catalog().features]
    if gone:
        raise DataError(f"it looks at {listing(gone)}, which is no feature any more")
    return features_as_of(feast, features, as_of)


@app.command()
def attach(
    name: Name = None,
    version: Annotated[str | None, typer.Option(help="A version of the model, e.g. v1. Default: the newest.")] = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Give every user the label of the nearest cluster.

    Labels are rows of the Feast feature view that clusters.yaml names: label, cluster, distance, model_version. They go
    into the offline store, and into the online store, where lookups see them at once. Nothing is fitted.
    """
    with working("Loading Feast"):
        from rules_engine.features.feast_repo import FeastRepo
        from rules_engine.ml.attach import attach as attach_model
        from rules_engine.ml.cluster_model import ModelFolder
        from rules_engine.ml.definition import choose, load_cluster_definitions

        project = Project.open(repo)
        feast = FeastRepo(project)
        definition = choose(load_cluster_definitions(project, feast.catalog()), name)
        folder = ModelFolder(project, definition.name)
        model = folder.load(version)
    plan = ReadPlan.load(project.read_plan)
    as_of = _instant(plan, at)
    with working("Reading features") as show:
        attached = attach_model(feast, model, as_of, lambda done, total: show(f"Wrote {done:,} of {total:,} labels"))
    folder.mark_attached(model.version)
    if output_format is Format.JSON:
        print_json(_attached_data(model, attached, as_of))
        return
    show_attached(model, attached, as_of)
    _warn(plan, model)


@app.command("list")
def list_versions(name: Stored = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Show the stored versions of a model, oldest first.

    `moved` is the share of users who changed cluster against the version before. The version whose labels users have is
    marked as attached.
    """
    folder = _folder(repo, name)
    attached = folder.attached()
    models = [folder.load(version) for version in folder.versions()]
    if output_format is Format.JSON:
        print_json([_version_data(model, attached) for model in models])
        return
    headers = ["version", "fitted", "as of", "k", "silhouette", "users", "moved", "checksum", ""]
    table(headers, [_version_row(model, attached) for model in models], right=headers[3:7])


@app.command()
def show(
    name: Stored = None,
    version: Annotated[str | None, typer.Option(help="A version of the model, e.g. v1. Default: the newest.")] = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show a stored version: its clusters, and what became of those of the version before."""
    folder = _folder(repo, name)
    model = folder.load(version)
    if output_format is Format.JSON:
        print_json({"version": model.version, "file": str(folder.file(model.version)), **model.content()})
        return
    show_fit(model, is_new=True)


def _folder(repo: Any, name: str | None) -> ModelFolder:
    """The folder of the named model, or of the only one. Feast is not asked."""
    from rules_engine.ml.cluster_model import ModelFolder

    project = Project.open(repo)
    fitted = sorted(path.name for path in (project.state_dir / "models").glob("*") if path.is_dir())
    if not fitted:
        raise UnknownNameError("no clusters were fitted yet", hint="run `segments cluster fit`")
    if name is None and len(fitted) > 1:
        raise UnknownNameError(f"there are several models: {listing(fitted)}", hint="name one of them")
    if name is not None and name not in fitted:
        raise UnknownNameError(f"no model of `{name}` was fitted yet", hint=f"there is {listing(fitted)}")
    return ModelFolder(project, name or fitted[0])


def _version_row(model: ClusterModel, attached: str | None) -> list[str]:
    return [
        model.version,
        format_instant(model.created_at)[:16].replace("T", " "),
        _day(model.as_of),
        str(len(model.clusters)),
        f"{model.score.silhouette:.3f}",
        f"{model.users:,}",
        f"{model.matching.share_moved:.1%}" if model.matching else "",
        model.checksum.removeprefix("sha256:")[:12],
        "attached" if model.version == attached else "",
    ]


def _version_data(model: ClusterModel, attached: str | None) -> dict[str, Any]:
    return {
        "version": model.version,
        "created_at": format_instant(model.created_at),
        "as_of": format_instant(model.as_of),
        "k": len(model.clusters),
        "silhouette": model.score.silhouette,
        "users": model.users,
        "previous": model.matching.previous if model.matching else None,
        "share_moved": model.matching.share_moved if model.matching else None,
        "checksum": model.checksum,
        "attached": model.version == attached,
    }


def _fitted_data(folder: ModelFolder, found: Published) -> dict[str, Any]:
    version = found.model.version
    return {
        "version": version or None,
        "new": found.is_new,
        "refused": str(found.refusal) if found.refusal else None,
        "file": str(folder.file(version)) if version else None,
        **found.model.content(),
    }


def _warn_of_names(model: ClusterModel) -> None:
    numbers = {cluster.number for cluster in model.clusters}
    for number, label in model.definition.names:
        if number not in numbers:
            remark(("warning", "bold yellow"), f": clusters.yaml names cluster {number} `{label}`, and there is none")


def _instant(plan: ReadPlan, at: int | None) -> int:
    """The instant that was given, else the applied project's, else the clock's."""
    if at is not None:
        return at
    return now_micros() if plan.now is None else plan.now


def _warn(plan: ReadPlan, model: ClusterModel) -> None:
    """A refit may name its clusters otherwise, and a segment that looks for the old name would silently be empty."""
    from rules_engine.ml.attach import unknown_labels
    from rules_engine.rules.codec import decode_program

    for segment, labels in unknown_labels(decode_program(plan.definitions["segments"]), model).items():
        remark(
            ("warning", "bold yellow"),
            f": segment `{segment}` looks for {listing(labels)}, and {model.version} has no such label: "
            f"it has {listing(model.labels)}",
        )


def show_fit(model: ClusterModel, is_new: bool) -> None:
    """Print a model: how the number of clusters was chosen, and who is in them."""
    left_out = f", {model.left_out:,} left out because a feature is missing" if model.left_out else ""
    version = model.version or "(not stored)"
    unchanged = "" if is_new or not model.version else " (the same as before)"
    say(
        f"{model.definition.name} {version}{unchanged}: ",
        f"{model.users:,} users as of {_day(model.as_of)}{left_out}",
    )
    tried = ", ".join(f"{score.k}: {score.silhouette:.3f}" for score in model.scores)
    say(f"{len(model.clusters)} clusters, chosen by silhouette ({tried})")
    say()
    numbers = [str(cluster.number) for cluster in model.clusters]
    rows = [
        [number, cluster.label, f"{cluster.size:,}", f"{cluster.size / model.users:.1%}"]
        for number, cluster in zip(numbers, model.clusters, strict=True)
    ]
    table(["cluster", "label", "users", "share"], rows, right=["cluster", "users", "share"])
    say()
    means = [[key, *(f"{cluster.profile[key]:,.1f}" for cluster in model.clusters)] for key in model.features]
    table(["mean in cluster", *numbers], means, right=numbers)
    if model.matching:
        show_matching(model.matching)


def show_matching(matching: Matching) -> None:
    """Print what became of the clusters of the version before."""
    say()
    if not matching.users:
        say(f"No user can be compared with {matching.previous}: every cluster is new")
        return
    say(
        f"Since {matching.previous}: {matching.moved:,} of {matching.users:,} users ({matching.share_moved:.1%}) "
        f"are in another cluster, adjusted Rand index {matching.rand_index:.3f}"
    )
    if matching.overlap:
        kept = ", ".join(f"{number}: {overlap:.0%}" for number, overlap in matching.overlap.items())
        say(f"Kept, with the users in both forms as a share of those in either: {kept}")
    if matching.changes:
        table(["change", "cluster", "label", "users"], map(_change_row, matching.changes), right=["cluster"])


#: Before the shares of a change's users.
_DIRECTIONS = {"born": "were in", "merged": "were in", "died": "now in", "split": "now in", "renamed": "was"}


def _change_row(change: Change) -> list[str]:
    shares = [f"{label} ({share:.0%})" for label, share in change.others.items()]
    if change.kind == "renamed":
        shares = list(change.others)
    shown = f"{_DIRECTIONS[change.kind]} {'; '.join(shares)}" if shares else ""
    return [change.kind, str(change.number), change.label, shown]


def show_attached(model: ClusterModel, attached: Attached, as_of: int) -> None:
    """Print what attaching did."""
    say(
        f"{model.definition.name} {model.version}: labels for {attached.users:,} users as of {_day(as_of)}, "
        f"{attached.added:,} of them new or changed"
    )
    if attached.moved:
        say(f"{attached.moved:,} users have another label than before")
    if attached.left_out:
        say(f"{attached.left_out:,} users have none, because a feature of theirs is missing")
    say()
    rows = [[label, f"{size:,}", f"{size / attached.users:.1%}"] for label, size in attached.sizes.items()]
    table(["label", "users", "share"], rows, right=["users", "share"])


def _attached_data(model: ClusterModel, attached: Attached, as_of: int) -> dict[str, Any]:
    return {
        "clusters": model.definition.name,
        "model_version": model.version,
        "as_of": format_instant(as_of),
        "users": attached.users,
        "left_out": attached.left_out,
        "added": attached.added,
        "moved": attached.moved,
        "sizes": attached.sizes,
    }


def _day(instant: int) -> str:
    return format_instant(instant).removesuffix("T00:00:00Z")
