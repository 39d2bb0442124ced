"""`segments model`: learn how likely entities are to do something, keep versions, give every entity a score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo, duration
from rules_engine.cli.common.output import print_json, say, working
from rules_engine.cli.common.versions import Of, Pages, WhichVersion, add_version_commands
from rules_engine.clock import DAY, format_instant, to_micros
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.ml.propensity.model import PropensityModel

app = typer.Typer(
    no_args_is_help=True,
    help="Learn how likely users are to act; the scores are features too.",
    add_completion=False,
)

Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Which definition of feature_repo/models.yaml. Default: the only one."),
]


@app.command()
def fit(
    name: Name = None,
    at: At = None,
    if_older: Annotated[
        int | None,
        typer.Option("--if-older", metavar="TIME", parser=duration, help="Fit only if the newest is older, e.g. 30d."),
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
    The version is a JSON file under .segments/models/, with a report beside it. Fitting the same data again gives
    the same model, and no new version. The first version is promoted; later ones are with --promote, or `promote`.
    A version that ranks worse than recency and frequency alone, or than the promoted one, or cannot be compared with
    that one, is stored and not promoted, and the exit code is 1.

    With --if-older or --if-drift nothing is fitted unless one of them holds: for a scheduler.
    """
    with working("Loading Feast") as show:
        from rules_engine.ml.propensity.project import ModelProject
        from rules_engine.ml.propensity.retrain import due, fit_version

        opened = ModelProject.open(Project.open(repo), name, at)
        store = opened.store()
        is_due, why = due(opened, store, older=if_older, drifted=if_drift)
        run = fit_version(opened, store, promote=promote, report=show) if is_due else None
    if run is None:
        _say_not_due(opened.definition.name, why, output_format)
        return
    from rules_engine.cli.common.model_output import fitted_data, show_fitted

    written = _write_reports(store.report(run.model.version), run.model, report)
    if output_format is Format.JSON:
        print_json(fitted_data(store, run, why))
    else:
        show_fitted(store, run, why, written)
    if run.refusal is not None:
        raise run.refusal


def _write_reports(path: Path, model: PropensityModel, also: Path | None) -> Path:
    from rules_engine.ml.propensity.report import page

    for target in (path, also):
        if target is not None:
            page(model).write(target)
    return also or path


def _say_not_due(name: str, why: str, output_format: Format) -> None:
    if output_format is Format.JSON:
        print_json({"model": name, "fitted": False, "why": why})
    else:
        say(f"{name}: nothing was fitted, for {why}")


@app.command()
def score(
    name: Name = None,
    version: WhichVersion = None,
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
        from rules_engine.ml.propensity.project import ModelProject

        opened = ModelProject.open(Project.open(repo), name, at)
        model, scored = opened.attach(version, show)
    if output_format is Format.JSON:
        print_json(
            {
                "model": model.definition.name,
                "model_version": model.version,
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
    show_scored(model, scored, opened.now)


@app.command()
def reasons(
    entity: Entity,
    name: Of = None,
    version: WhichVersion = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show why someone has their score: what each feature does to it.

    Features are read from the online store. One after the other gets the values that it has for 25 other users, and the
    score is computed again; the mean difference is the feature's effect.
    """
    from rules_engine.cli.common.model_output import show_reasons, value_text
    from rules_engine.ml.propensity.model import MODELS
    from rules_engine.ml.propensity.reasons import score_reasons
    from rules_engine.ml.versions.store import open_fitted

    store = open_fitted(Project.open(repo), MODELS, name)
    model = store.current(version)
    explained = score_reasons(store.project, model, entity, at)
    if output_format is Format.JSON:
        print_json(
            {
                "entity": entity,
                "model": store.name,
                "model_version": model.version,
                "score": explained.score,
                "percentile": explained.percentile,
                "reasons": [
                    {"feature": reason.feature, "value": _json(explained.values[reason.feature])}
                    | {"typical": reason.typical, "effect": reason.effect}
                    for reason in explained.reasons
                ],
            }
        )
        return
    texts, reasons = {}, []
    for reason in explained.reasons:
        value = explained.values[reason.feature]
        if explained.is_time(reason.feature):
            texts[reason.feature] = _ago(explained.now - to_micros(value))
            typical = None if reason.typical is None else _ago(reason.typical * DAY)
            reasons.append(replace(reason, typical=typical))
        else:
            texts[reason.feature] = value_text(value)
            reasons.append(reason)
    show_reasons(
        f"{entity} has {store.name} {explained.score:.4f} by {model.version}", explained.percentile, reasons, texts
    )


def _ago(micros: float) -> str:
    return f"{micros / DAY:.4g} days ago"


def _json(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _pages() -> Pages[PropensityModel]:
    from rules_engine.cli.common.model_output import PAGES

    return PAGES


add_version_commands(app, _pages)
