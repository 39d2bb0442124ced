"""`segments model`: learn how likely users are to do something, keep versions, give everyone a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo
from rules_engine.cli.common.output import print_json, remark, say, table, working
from rules_engine.clock import DAY, format_instant, now_micros, parse_duration
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.ml.propensity.fit import Material
    from rules_engine.ml.propensity.metrics import Difference
    from rules_engine.ml.propensity.model import PropensityModel
    from rules_engine.ml.propensity.versions import Versions

app = typer.Typer(
    no_args_is_help=True,
    help="Learn how likely users are to act; the scores are features too.",
    add_completion=False,
)


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Which definition of feature_repo/models.yaml. Default: the only one."),
]
Stored = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Which model. Default: the only one that was fitted.")
]
Version = Annotated[str | None, typer.Option(help="A version, e.g. v1. Default: the promoted one.")]
Which = Annotated[str, typer.Argument(metavar="VERSION", help="A version, e.g. v2.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Default: the only one that was fitted.")]


@app.command()
def fit(
    name: Name = None,
    at: At = None,
    if_older: Annotated[
        int | None,
        typer.Option("--if-older", metavar="TIME", parser=_duration, help="Fit only if the newest is older, e.g. 30d."),
    ] = None,
    if_drift: Annotated[bool, typer.Option("--if-drift", help="Fit only if the promoted version has drifted.")] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Promote the new version, unless it ranks worse than the promoted one.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the report, an HTML file, here.")] = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Learn a model, judge it on later cuts, and store it as a version.

    Features come point in time from Feast's offline store as of each cut, labels from what happened after it. The
    parameters with the best score in cross-validation are taken; the test compares with recency and frequency alone.
    The version is a JSON file under .segments/propensity/, with a report beside it. Fitting the same data again gives
    the same model, and no new version. The first version is promoted; later ones are with --promote, or `promote`.

    With --if-older or --if-drift nothing is fitted unless one of them holds: for a scheduler.
    """
    with working("Loading Feast") as show:
        from rules_engine.ml.propensity.attach import check_view
        from rules_engine.ml.propensity.fit import fit as fit_model
        from rules_engine.ml.propensity.project import ModelProject
        from rules_engine.ml.propensity.retrain import due
        from rules_engine.ml.propensity.versions import Versions

        opened = ModelProject.open(Project.open(repo), name, at)
        check_view(opened.repo, opened.definition.name)
        versions = Versions(opened.repo.project, opened.definition.name)
        wanted, why = due(opened, versions, older=if_older, drifted=if_drift)
        if wanted:
            material = opened.material(show)
            model, is_new = versions.save(fit_model(opened.definition, material, opened.now, show), now_micros())
    if not wanted:
        _say_not_due(opened.definition.name, why, output_format)
        return
    from rules_engine.cli.common.model_output import fitted_data, show_fitted

    written = _write_reports(versions, model, report)
    compared = _compared(versions, model, material) if is_new else None
    refusal = _promote_fitted(versions, model, compared, asked=promote)
    _publish(repo)
    if output_format is Format.JSON:
        print_json(fitted_data(versions, model, is_new, compared, why))
    else:
        show_fitted(versions, model, compared, why, written, is_new=is_new)
    if refusal is not None:
        raise refusal


@app.command("list")
def list_versions(name: Stored = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Show the stored versions of a model, oldest first, with what they learned from and how good they are."""
    from rules_engine.cli.common.model_output import version_data, version_row

    versions = _versions(repo, name)
    promoted = versions.promoted()
    models = [versions.load(version) for version in versions.versions()]
    if output_format is Format.JSON:
        print_json([version_data(model, promoted) for model in models])
        return
    headers = [
        "version",
        "fitted",
        "algorithm",
        "learned from",
        "rows",
        "ROC AUC",
        "avg precision",
        "Brier",
        "checksum",
        "",
    ]
    table(headers, [version_row(model, promoted) for model in models], right=headers[4:8])


@app.command()
def show(
    name: Stored = None, version: Version = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT
) -> None:
    """Show a version: what it learned from, how good it is, and against what."""
    from rules_engine.cli.common.model_output import show_fit

    versions = _versions(repo, name)
    model = versions.current(version)
    if output_format is Format.JSON:
        print_json({"version": model.version, "file": str(versions.file(model.version)), **model.content()})
        return
    show_fit(model)


@app.command()
def compare(
    first: Which, second: Which, model: Model = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT
) -> None:
    """Show two versions side by side."""
    from rules_engine.cli.common.model_output import show_compared, version_data

    versions = _versions(repo, model)
    found = versions.load(first), versions.load(second)
    if output_format is Format.JSON:
        same_rows = found[0].test.digest == found[1].test.digest
        rows = [version_data(one, versions.promoted()) for one in found]
        print_json({"same_test_rows": same_rows, "versions": rows})
        return
    show_compared(*found)


@app.command()
def promote(version: Which, model: Model = None, repo: Repo = HERE) -> None:
    """Let a version count: the next run of `score` is by it."""
    versions = _versions(repo, model)
    before = versions.promoted()
    versions.promote(version, now_micros())
    _publish(repo)
    say(f"{versions.name}: {version} is promoted", "" if before in (None, version) else f", in place of {before}")


@app.command()
def rollback(model: Model = None, repo: Repo = HERE) -> None:
    """Let the version count again that did so before the promoted one."""
    versions = _versions(repo, model)
    before = versions.promoted()
    version = versions.rollback(now_micros())
    _publish(repo)
    say(f"{versions.name}: {version} is promoted again, in place of {before}")


@app.command()
def score(
    name: Name = None,
    version: Version = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Give everyone a score, by the promoted version.

    Scores are rows of the Feast feature view that models.yaml names: score, percentile, model_version. They go into the
    offline store, valid from the instant that they are computed for, and into the online store, where lookups see them
    at once. Nothing is fitted.
    """
    with working("Loading Feast") as show:
        from rules_engine.cli.common.model_output import show_scored
        from rules_engine.ml.propensity.attach import attach
        from rules_engine.ml.propensity.project import ModelProject
        from rules_engine.ml.propensity.versions import Versions

        opened = ModelProject.open(Project.open(repo), name, at)
        found = Versions(opened.repo.project, opened.definition.name).current(version)
        scored = attach(opened.repo, found, opened.population(found), opened.now, show)
    if output_format is Format.JSON:
        print_json(
            {
                "model": found.definition.name,
                "model_version": found.version,
                "as_of": format_instant(opened.now),
                "users": scored.users,
                "left_out": scored.left_out,
                "mean": scored.mean,
                "tenths": scored.parts,
                "online": scored.online,
                "seconds": scored.seconds,
            }
        )
        return
    show_scored(found, scored, opened.now)


@app.command()
def reasons(
    entity: Entity,
    model: Model = None,
    version: Version = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show why someone has their score: what each feature does to it.

    Features are read from the online store. One after the other is set to what it typically is, and the score is
    computed again; the difference is the feature's effect.
    """
    from rules_engine.cli.common.model_output import show_reasons, value_text
    from rules_engine.clock import from_micros, to_micros
    from rules_engine.read_plan import ReadPlan
    from rules_engine.sdk import SegmentClient

    versions = _versions(repo, model)
    scorer = versions.current(version).scorer
    plan = ReadPlan.load(Project.open(repo).read_plan)
    now = at if at is not None else now_micros() if plan.now is None else plan.now
    with SegmentClient.from_repo(repo) as client:
        shown = client.features(entity, scorer.features, at=from_micros(now))
    times = {name for name, value in shown.items() if hasattr(value, "tzinfo")}
    values = {name: to_micros(value) if name in times else value for name, value in shown.items()}
    found = scorer.score(values, now)
    if found is None:
        raise DataError(f"{entity} has no score: the online store has none of the features", hint="is the key right?")
    effects = scorer.reasons(values, now)
    if output_format is Format.JSON:
        print_json(
            {
                "entity": entity,
                "model": versions.name,
                "model_version": scorer.version,
                "score": found,
                "percentile": scorer.percentile(found),
                "reasons": [
                    {"feature": one.feature, "value": _json(shown[one.feature]), "typical": one.typical}
                    | {"effect": one.effect}
                    for one in effects
                ],
            }
        )
        return
    texts = {name: _ago(now - values[name]) if name in times else value_text(value) for name, value in shown.items()}
    effects = [
        replace(one, typical=_ago(one.typical * DAY)) if one.feature in times and one.typical is not None else one
        for one in effects
    ]
    show_reasons(
        f"{entity} has {versions.name} {found:.4f} by {scorer.version}", scorer.percentile(found), effects, texts
    )


# --- parts ----------------------------------------------------------------------------------------------------------


def _versions(repo: Path, name: str | None) -> Versions:
    """The versions of the named model, or of the only one. Feast is not asked."""
    from rules_engine.ml.propensity.versions import Versions, fitted
    from rules_engine.ml.versions.files import the_one

    project = Project.open(repo)
    known = fitted(project)
    if not known:
        raise UnknownNameError("no model was fitted yet", hint="run `segments model fit`")
    return Versions(project, the_one(known, name, "fitted models"))


def _ago(micros: float) -> str:
    """How long ago, for people."""
    return f"{micros / DAY:.4g} days ago"


def _publish(repo: Path) -> None:
    """Let requests be answered by the promoted versions, where models score within them."""
    from rules_engine.ml.propensity.plan_data import publish

    publish(Project.open(repo))


def _json(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _write_reports(versions: Versions, model: PropensityModel, also: Path | None) -> Path:
    from rules_engine.ml.propensity.report import page

    beside = versions.file(model.version).with_suffix(".html")
    for path in (beside, also):
        if path is not None:
            page(model).write(path)
    return also or beside


def _compared(
    versions: Versions, model: PropensityModel, material: Material
) -> tuple[PropensityModel, list[Difference]] | None:
    """How the new version does beside the promoted one, on its own test rows."""
    from rules_engine.ml.propensity.retrain import against

    promoted = versions.promoted()
    if promoted is None:
        return None
    previous = versions.load(promoted)
    try:
        return previous, against(model, previous, material.test)
    except DataError as error:
        remark(f"not compared with {promoted}: {error}")
        return None


def _promote_fitted(
    versions: Versions,
    model: PropensityModel,
    compared: tuple[PropensityModel, list[Difference]] | None,
    *,
    asked: bool,
) -> DataError | None:
    from rules_engine.ml.propensity.retrain import refuse_worse

    if not asked and versions.promoted() is not None:
        return None
    if compared is not None:
        try:
            refuse_worse(model, *compared)
        except DataError as error:
            return error
    versions.promote(model.version, now_micros())
    return None


def _say_not_due(name: str, why: str, output_format: Format) -> None:
    if output_format is Format.JSON:
        print_json({"model": name, "fitted": False, "why": why})
    else:
        say(f"{name}: nothing was fitted, for {why}")
