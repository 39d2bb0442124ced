"""`segments cluster`: find groups of users, and give every user the label of a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import cluster_output as out
from rules_engine.cli.common.options import HERE, At, Format, OutputFormat, Repo, percent
from rules_engine.cli.common.output import print_json, remark, say, table, working
from rules_engine.cli.drift import limit as limit_text
from rules_engine.clock import now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan

if TYPE_CHECKING:
    import pandas as pd

    from rules_engine.features.feast.repo import FeastRepo
    from rules_engine.ml.clusters.fitting import Fit
    from rules_engine.ml.clusters.model import ClusterModel
    from rules_engine.ml.clusters.refit import Published
    from rules_engine.ml.clusters.versions import ModelFolder

app = typer.Typer(
    no_args_is_help=True, help="Group users by their features; the labels are features too.", add_completion=False
)

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Which definition of feature_repo/clusters.yaml. Default: the only one."),
]


Stored = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Which clusters. Default: the only ones that were fitted.")
]
Of = Annotated[
    str | None, typer.Option("--of", metavar="NAME", help="Which clusters. Default: the only ones that were fitted.")
]
Version = Annotated[str, typer.Argument(help="A version of the model, e.g. v1.")]

#: How often clusters are looked for among other users, to tell how stable they are.
_RESAMPLES = 20


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
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="MEASURE=NUMBER",
            parser=limit_text,
            help="With --if-drift: what counts as drift. Default: psi=0.25, ks=0.2 and share=10%.",
        ),
    ] = None,
    report: Annotated[bool, typer.Option(help="Write a report with pictures beside the model.")] = True,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Find groups of users as of an instant, and store the model.

    Features come point in time from Feast's offline store. The algorithm that clusters.yaml names runs for each number
    of clusters that it allows; the best one is kept. The model is a JSON file under .segments/models/, with a report
    beside it. Fitting the same data again gives the same model, and no new version.

    A cluster that has most of its users in common with one of the version before keeps its number and its name. If too
    many users would move to another cluster, nothing is stored and the exit code is 1.

    For a scheduler: `segments cluster fit --if-drift && segments cluster attach`.
    """
    with working("Loading Feast") as show:
        from rules_engine.features.feast.repo import FeastRepo
        from rules_engine.ml.clusters.definition import FILE, load_cluster_definitions
        from rules_engine.ml.clusters.fitting import fit_closely
        from rules_engine.ml.clusters.labels import check_view
        from rules_engine.ml.clusters.population import sample
        from rules_engine.ml.clusters.refit import publish
        from rules_engine.ml.clusters.versions import ModelFolder
        from rules_engine.ml.versions.files import the_one

        project = Project.open(repo)
        feast = FeastRepo(project)
        definitions = load_cluster_definitions(project, feast.catalog())
        definition = definitions[the_one(definitions, name, f"clusters in {FILE}")]
        check_view(feast, definition.name)
        plan = ReadPlan.load(project.read_plan)
        as_of = _instant(plan, at)
        folder = ModelFolder(project, definition.name)
        if if_drift and not _has_drifted(feast, folder, as_of, limit or []):
            if output_format is Format.JSON:
                compared = folder.previous()
                print_json({"version": compared and compared.version, "new": False, "drifted": False})
            return
        stages = out.Stages(show)
        stages("Reading features")
        method = definition.method
        drawn = sample(
            feast, definition.keys, as_of, method.sample, method.seed,
            lambda done: show(f"Reading features: {done:.0%}"),
        )  # fmt: skip
        fitted = fit_closely(
            definition, drawn.frame, as_of,
            population=drawn.population, window=drawn.window, resamples=_RESAMPLES, progress=stages,
        )  # fmt: skip
        stages("Matching with the version before")
        before = folder.previous()
        found = publish(
            folder,
            fitted.model,
            drawn.frame,
            lambda features: _features_of_before(feast, features, as_of, definition.method.sample, method.seed),
            now_micros(),
            max_moved=max_moved,
            accept_drift=accept_drift,
        )
        written = _report(folder, fitted, found, before, drawn.frame, stages) if report else None
    if output_format is Format.JSON:
        print_json(_fitted_data(folder, found, written, stages))
    else:
        out.show_fit(found.model, found.is_new)
        stages.print()
        _warn_of_names(found.model)
        out.warn_of_doubt(found.model)
        _warn(plan, found.model)
    if found.refusal is not None:
        raise found.refusal
    if found.is_new and output_format is Format.TEXT:
        if written:
            say(f"Report: {written}")
        say(_next_step(folder, found.model))


def _has_drifted(feast: FeastRepo, folder: ModelFolder, as_of: int, limits: Sequence[str]) -> bool:
    """Whether users have drifted since the version that they are labelled with; said on stderr."""
    from rules_engine.ml.clusters.drift import beyond, cluster_drift, parse_limits
    from rules_engine.ml.clusters.population import sample

    if not folder.versions():
        remark("No version yet, so there is nothing to have drifted from")
        return True
    model = folder.previous()
    assert model is not None
    drawn = sample(feast, model.features, as_of, model.definition.method.sample, model.definition.method.seed)
    found = beyond(cluster_drift(model, [drawn.frame]), parse_limits(limits))
    for drift, measures in found:
        shown = ", ".join(f"{name} {drift.measures[name]:.3f}" for name in measures)
        remark(f"Drifted since {model.version}: {drift.kind} {drift.name} ({shown})")
    if not found:
        remark(f"No drift since {model.version}: nothing is fitted")
    return bool(found)


def _features_of_before(feast: FeastRepo, features: Sequence[str], as_of: int, most: int, seed: int) -> pd.DataFrame:
    """What the version before looks at, if it is still there."""
    from rules_engine.ml.clusters.population import sample

    gone = [feature for feature in features if feature not in feast.catalog().features]
    if gone:
        raise DataError(f"it looks at {listing(gone)}, which is no feature any more")
    return sample(feast, features, as_of, most, seed).frame


def _report(
    folder: ModelFolder,
    fitted: Fit,
    found: Published,
    before: ClusterModel | None,
    frame: pd.DataFrame,
    stages: out.Stages,
) -> str | None:
    """Write the report of a fit that is new, or was refused. None if there is nothing to draw with."""
    from rules_engine.ml.clusters.report import report
    from rules_engine.ml.report.pictures import can_draw

    if not can_draw() or (not found.is_new and found.refusal is None):
        return None
    stages("Drawing the report")
    path = folder.report(found.model.version or "refused")
    report(found.model, fitted, before, frame).write(path)
    return str(path)


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
        from rules_engine.features.feast.repo import FeastRepo
        from rules_engine.ml.clusters.attach import attach as attach_model
        from rules_engine.ml.clusters.definition import FILE, load_cluster_definitions
        from rules_engine.ml.clusters.versions import ModelFolder
        from rules_engine.ml.versions.files import the_one

        project = Project.open(repo)
        feast = FeastRepo(project)
        definitions = load_cluster_definitions(project, feast.catalog())
        definition = definitions[the_one(definitions, name, f"clusters in {FILE}")]
        folder = ModelFolder(project, definition.name)
        model = folder.current(version)
        plan = ReadPlan.load(project.read_plan)
        as_of = _instant(plan, at)
        stages = out.Stages(show)
        stages("Labelling users")
        attached = attach_model(feast, model, as_of, stages)
    folder.mark_attached(model.version)
    if output_format is Format.JSON:
        print_json({**out.attached_data(model, attached, as_of), "seconds": stages.rounded()})
        return
    out.show_attached(model, attached, as_of)
    stages.print()
    newest = folder.versions()[-1]
    if version is None and model.version != newest:
        remark(f"{newest} is newer: `segments cluster promote {newest}` lets `attach` take it")
    _warn(plan, model)


@app.command("list")
def list_versions(name: Stored = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Show the stored versions of a model, oldest first.

    `moved` is the share of users who changed cluster against the version before. The version whose labels users have is
    marked as attached, the one that `attach` takes as promoted.
    """
    folder = _folder(repo, name)
    models = [folder.load(version) for version in folder.versions()]
    if output_format is Format.JSON:
        print_json([out.version_data(model, folder) for model in models])
        return
    marked = {"attached": folder.attached(), "promoted": folder.promoted()}
    rows = [out.version_row(m, ", ".join(mark for mark in marked if marked[mark] == m.version)) for m in models]
    table(out.VERSION_HEADERS, rows, right=out.VERSION_HEADERS[4:8])


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
    out.show_fit(model, is_new=True)


@app.command()
def compare(
    first: Version, second: Version, name: Of = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT
) -> None:
    """Show two versions side by side: data, measures, clusters, and who moved if the second follows the first."""
    folder = _folder(repo, name)
    models = [folder.load(first), folder.load(second)]
    if output_format is Format.JSON:
        print_json([{**out.version_data(model, folder), **model.content()} for model in models])
        return
    out.show_comparison(*models)


@app.command()
def promote(version: Version, name: Of = None, repo: Repo = HERE) -> None:
    """Let a version be the one that `attach` takes, whatever is fitted later."""
    folder = _folder(repo, name)
    before = folder.promote(version)
    was = f", instead of {before}" if before and before != version else ""
    say(f"{folder.name}: {version} is promoted{was}")
    say("Next: `segments cluster attach` gives every user its labels")


@app.command()
def rollback(name: Of = None, repo: Repo = HERE) -> None:
    """Undo the last promotion: the version that was promoted before it counts again."""
    folder = _folder(repo, name)
    undone, now = folder.rollback()
    say(f"{folder.name}: {now} is promoted again, instead of {undone}")
    say("Next: `segments cluster attach` gives every user its labels")


def _folder(repo: Any, name: str | None) -> ModelFolder:
    """The folder of the named model, or of the only one. Feast is not asked."""
    from rules_engine.ml.clusters.versions import ModelFolder, fitted_names
    from rules_engine.ml.versions.files import the_one

    project = Project.open(repo)
    fitted = fitted_names(project)
    if not fitted:
        raise UnknownNameError("no clusters were fitted yet", hint="run `segments cluster fit`")
    return ModelFolder(project, the_one(fitted, name, "fitted clusters"))


def _fitted_data(folder: ModelFolder, found: Published, report: str | None, stages: out.Stages) -> dict[str, Any]:
    version = found.model.version
    return {
        "version": version or None,
        "new": found.is_new,
        "refused": str(found.refusal) if found.refusal else None,
        "file": str(folder.file(version)) if version else None,
        "report": report,
        "seconds": stages.rounded(),
        **found.model.content(),
    }


def _next_step(folder: ModelFolder, model: ClusterModel) -> str:
    if folder.promoted() is not None:
        return f"Next: `segments cluster promote {model.version}` lets `attach` take it, instead of {folder.promoted()}"
    return "Next: `segments cluster attach` gives every user the label of a cluster"


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
    from rules_engine.ml.clusters.labels import unknown_labels
    from rules_engine.rules.codec import decode_program

    for segment, labels in unknown_labels(decode_program(plan.definitions["segments"]), model).items():
        remark(
            ("warning", "bold yellow"),
            f": segment `{segment}` looks for {listing(labels)}, and {model.version} has no such label: "
            f"it has {listing(model.labels)}",
        )
