"""`segments cluster`: find groups of users, and give every user the label of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.options import HERE, At, Format, OutputFormat, Repo
from rules_engine.cli.output import print_json, remark, say, table, working
from rules_engine.clock import format_instant, now_micros
from rules_engine.diagnostics import listing
from rules_engine.features.read_plan import ReadPlan
from rules_engine.project import Project

if TYPE_CHECKING:
    from rules_engine.ml.attach import Attached
    from rules_engine.ml.cluster_model import ClusterModel

app = typer.Typer(
    no_args_is_help=True, help="Group users by their features; the labels are features too.", add_completion=False
)

Name = Annotated[
    str | None, typer.Argument(help="Which definition of feature_repo/clusters.yaml. Default: the only one.")
]


@app.command()
def fit(name: Name = None, at: At = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Find groups of users as of an instant, and store the model.

    Features come point in time from Feast's offline store. k-means runs on standardized features for each number of
    clusters that clusters.yaml allows; the one with the best silhouette is kept. The model is a JSON file under
    .segments/models/. Fitting the same data again gives the same model, and no new version.
    """
    with working("Loading Feast"):
        from rules_engine.features.feast_repo import FeastRepo
        from rules_engine.ml import clusters
        from rules_engine.ml.attach import check_view
        from rules_engine.ml.cluster_model import ModelFolder
        from rules_engine.ml.definition import choose, load_cluster_definitions
        from rules_engine.ml.offline import features_as_of

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
    model, is_new = folder.save(model, now_micros())
    if output_format is Format.JSON:
        print_json(
            {"version": model.version, "new": is_new, "file": str(folder.file(model.version)), **model.content()}
        )
        return
    show_fit(model, is_new)
    _warn(plan, model)
    if is_new:
        say("Next: `segments cluster attach` gives every user the label of a cluster")


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
        model = ModelFolder(project, definition.name).load(version)
    plan = ReadPlan.load(project.read_plan)
    as_of = _instant(plan, at)
    with working("Reading features") as show:
        attached = attach_model(feast, model, as_of, lambda done, total: show(f"Wrote {done:,} of {total:,} labels"))
    if output_format is Format.JSON:
        print_json(_attached_data(model, attached, as_of))
        return
    show_attached(model, attached, as_of)
    _warn(plan, model)


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
    unchanged = "" if is_new else " (the same as before)"
    say(
        f"{model.definition.name} {model.version}{unchanged}: ",
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
