"""`segments cluster`: find groups of entities, and give every entity the label of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common.drift_limits import Limit
from rules_engine.cli.common.options import HERE, At, Format, OutputFormat, Repo, percent
from rules_engine.cli.common.output import print_json, remark, say, warn, working
from rules_engine.cli.common.stages import StageTimes
from rules_engine.cli.common.versions import Pages, add_version_commands
from rules_engine.diagnostics import listing
from rules_engine.folders import Project

if TYPE_CHECKING:
    from pathlib import Path

    from rules_engine.ml.clusters.model import ClusterModel
    from rules_engine.ml.clusters.project import ClusterFitRun, ClusterProject
    from rules_engine.ml.clusters.refit import Published

app = typer.Typer(
    no_args_is_help=True, help="Group users by their features; the labels are features too.", add_completion=False
)

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Which definition of feature_repo/clusters.yaml. Default: the only one."),
]


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
    if_drift: Annotated[
        bool,
        typer.Option("--if-drift", help="Fit only if users have drifted since the version they are labelled with."),
    ] = False,
    limit: Limit = None,
    report: Annotated[bool, typer.Option(help="Write a report with pictures beside the model.")] = True,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Find groups of users as of an instant, and store the model.

    Features come point in time from Feast's offline store. The algorithm that clusters.yaml names runs for each number
    of clusters that it allows; the best one is kept. The model is a JSON file under .segments/clusters/, with a report
    beside it. Fitting the same data again gives the same model, and no new version.

    A cluster that has most of its users in common with one of the version before keeps its number and its name. If too
    many users would move to another cluster, nothing is stored and the exit code is 1.

    For a scheduler: `segments cluster fit --if-drift && segments cluster attach`.
    """
    with working("Loading Feast") as show:
        from rules_engine.ml.clusters.project import ClusterProject

        opened = ClusterProject.open(Project.open(repo), name, at)
        if if_drift and not _has_drifted(opened, limit or []):
            if output_format is Format.JSON:
                print_json({"version": opened.labelled_by(), "new": False, "drifted": False})
            return
        stages = StageTimes(show)
        run = opened.fit(stages, max_moved=max_moved, accept_drift=accept_drift)
        if report:
            stages("Drawing the report")
        written = opened.write_report(run) if report else None
    published = run.published
    if output_format is Format.JSON:
        print_json(_fitted_data(opened, published, written, stages))
    else:
        _show_fitted(opened, run, written, stages)
    if published.refusal is not None:
        raise published.refusal


def _has_drifted(opened: ClusterProject, limits: list[str]) -> bool:
    """Return whether entities have drifted since the version that they are labelled with, and say so on stderr."""
    from rules_engine.ml.drift import parse_limits

    version = opened.labelled_by()
    if version is None:
        remark("No version yet, so there is nothing to have drifted from")
        return True
    drifted = opened.drift(parse_limits(limits))
    for drift, measures in drifted:
        shown = ", ".join(f"{name} {drift.measures[name]:.3f}" for name in measures)
        remark(f"Drifted since {version}: {drift.kind} {drift.name} ({shown})")
    if not drifted:
        remark(f"No drift since {version}: nothing is fitted")
    return bool(drifted)


def _show_fitted(opened: ClusterProject, run: ClusterFitRun, report: Path | None, stages: StageTimes) -> None:
    from rules_engine.cli.common import cluster_output as out

    published, model = run.published, run.published.model
    out.show_fit(model, is_new=published.is_new)
    stages.print()
    out.warn_of_names(model)
    out.warn_of_doubt(model)
    for cluster, proposed in run.names_in_doubt():
        warn(
            f"cluster {cluster.number} keeps the name `{cluster.label}`, and a first fit would call it `{proposed}`: "
            f"`names: [{{cluster: {cluster.number}, label: ...}}]` in clusters.yaml renames it"
        )
    _warn_of_labels(opened, model)
    if not published.is_new:
        return
    if report:
        say(f"Report: {report}")
    promoted = opened.store.promoted()
    if promoted is None:
        say("Next: `segments cluster attach` gives every user the label of a cluster")
    else:
        say(f"Next: `segments cluster promote {model.version}` lets `attach` take it, instead of {promoted}")


def _fitted_data(
    opened: ClusterProject, published: Published, report: Path | None, stages: StageTimes
) -> dict[str, Any]:
    version = published.model.version
    return {
        "version": version or None,
        "new": published.is_new,
        "refused": str(published.refusal) if published.refusal else None,
        "file": str(opened.store.file(version)) if version else None,
        "report": str(report) if report else None,
        "seconds": stages.rounded(),
        **published.model.content(),
    }


@app.command()
def attach(
    name: Name = None,
    version: Annotated[
        str | None, typer.Option(help="A version of the model, e.g. v1. Default: the promoted, else the newest.")
    ] = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Give every user the label of a cluster.

    Labels are rows of the Feast feature view that clusters.yaml names: label, cluster, distance, model_version, and if
    the view has them, confidence, outlier and the probabilities of a mixture. They go into the offline store, and into
    the online store, where lookups see them at once. Nothing is fitted.
    """
    with working("Loading Feast") as show:
        from rules_engine.cli.common import cluster_output as out
        from rules_engine.ml.clusters.project import ClusterProject

        opened = ClusterProject.open(Project.open(repo), name, at)
        stages = StageTimes(show)
        stages("Labelling users")
        model, attached = opened.attach(version, stages)
    if output_format is Format.JSON:
        print_json({**out.attached_data(model, attached, opened.now), "seconds": stages.rounded()})
        return
    out.show_attached(model, attached, opened.now)
    stages.print()
    newest = opened.store.versions()[-1]
    if version is None and model.version != newest:
        remark(f"{newest} is newer: `segments cluster promote {newest}` lets `attach` take it")
    _warn_of_labels(opened, model)


def _warn_of_labels(opened: ClusterProject, model: ClusterModel) -> None:
    """Warn of segments that look for a label which no cluster has any more: they would silently be empty."""
    for segment, labels in opened.unknown_labels(model).items():
        warn(
            f"segment `{segment}` looks for {listing(labels)}, and {model.version or 'the new fit'} has no such label: "
            f"it has {listing(model.labels)}"
        )


def _pages() -> Pages[ClusterModel]:
    from rules_engine.cli.common.cluster_output import PAGES

    return PAGES


add_version_commands(app, _pages)
