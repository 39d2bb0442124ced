"""`segments drift`: how far today's users are from those that clusters and models were fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common.options import HERE, At, Format, OutputFormat, Repo
from rules_engine.cli.common.output import print_json, say, table, working
from rules_engine.clock import format_instant, now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan

if TYPE_CHECKING:
    from rules_engine.ml.clusters.drift import Drift


def limit(text: str) -> str:
    """A limit such as ``psi=0.25``, checked as an option's value."""
    from rules_engine.ml.clusters.drift import parse_limits

    try:
        parse_limits([text])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def drift(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Clusters or models. Default: all that were fitted.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-if",
            metavar="MEASURE=NUMBER",
            parser=limit,
            help="Exit with 1 if this is reached: psi=0.25, ks=0.2, share=10%, loss=0.05. May be given several times.",
        ),
    ] = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show how far users have drifted since the fits.

    For each feature that clusters look at: the population stability index (psi) and the Kolmogorov-Smirnov statistic
    (ks) against the users of the fit. For each cluster, how much its share has changed; for each model, its scores, and
    how good they turned out to be. What is beyond the limits is marked. What users are labelled with now counts.

    In a crontab, `segments drift --fail-if psi=0.25` says by its exit code that it is time to look;
    `segments cluster fit --if-drift` refits if it is.
    """
    from rules_engine.ml.clusters.drift import beyond, parse_limits

    with working("Loading Feast") as show:
        project = Project.open(repo)
        found = list(_all(project, names or [], at, show))
    limits = parse_limits(fail_if or [])
    if output_format is Format.JSON:
        print_json([_data(drift, limits) for drift in found])
    else:
        _show(found, limits)
    too_far = beyond(found, limits)
    if fail_if and too_far:
        shown = listing([drift.name for drift, _ in too_far])
        raise DataError(
            f"drifted: {shown}",
            hint="`segments cluster fit --if-drift` and `segments model fit --if-drift` fit anew to today's users",
        )


def _all(project: Project, names: Sequence[str], at: int | None, show: Any) -> Iterator[Drift]:
    """Every clustering and every model, or those that are named."""
    from rules_engine.ml.clusters.versions import fitted_names
    from rules_engine.ml.propensity.versions import fitted

    clusters, models = fitted_names(project), fitted(project)
    for name in names:
        if name not in [*clusters, *models]:
            known = f"there is {listing([*clusters, *models])}" if clusters or models else "nothing was fitted yet"
            raise UnknownNameError(f"no clusters and no model `{name}` were fitted", hint=known)
    if not clusters and not models:
        raise UnknownNameError("nothing was fitted yet", hint="run `segments cluster fit` or `segments model fit`")
    for name in clusters:
        if not names or name in names:
            show(f"Comparing users with those of {name}")
            yield from _of_clusters(project, name, at)
    for name in models:
        if not names or name in names:
            show(f"Comparing scores with those of {name}")
            yield from _of_model(project, name, at)


def _of_clusters(project: Project, name: str, at: int | None) -> list[Drift]:
    from rules_engine.features.feast.repo import FeastRepo
    from rules_engine.ml.clusters.drift import cluster_drift
    from rules_engine.ml.clusters.population import sample
    from rules_engine.ml.clusters.versions import ModelFolder

    model = ModelFolder(project, name).previous()
    assert model is not None, "a name that was fitted has a version"
    set_now = ReadPlan.load(project.read_plan).now
    as_of = at if at is not None else now_micros() if set_now is None else set_now
    method = model.definition.method
    drawn = sample(FeastRepo(project), model.features, as_of, method.sample, method.seed)
    return cluster_drift(model, [drawn.frame])


def _of_model(project: Project, name: str, at: int | None) -> list[Drift]:
    from rules_engine.ml.clusters.drift import Drift
    from rules_engine.ml.propensity.drift import model_drift
    from rules_engine.ml.propensity.project import ModelProject
    from rules_engine.ml.propensity.versions import Versions

    model = Versions(project, name).current()
    found = model_drift(ModelProject.open(project, name, at), model)
    title = f"{name} {found.version}"
    rows = [Drift(title, "score", "scores", {"psi": found.psi, "ks": found.ks}, found.mean_before, found.mean)]
    if found.loss is not None and found.performance is not None:
        since = f"ROC AUC of {format_instant(found.performance.at)}"
        now = found.performance.metrics.roc_auc
        rows.append(Drift(title, "performance", since, {"loss": found.loss}, found.expected_auc, now))
    return rows


def _show(found: Sequence[Drift], limits: Mapping[str, float]) -> None:
    headers = ["of", "what", "name", "before", "now", "psi", "ks", "change", ""]
    rows = []
    for drift in found:
        share = drift.kind == "cluster"
        numbers = [_number(value, share=share) for value in (drift.before, drift.now)]
        change = drift.measures.get("share", drift.measures.get("loss"))
        measures = [_decimal(drift.measures.get("psi")), _decimal(drift.measures.get("ks"))]
        beyond = "drifted" if drift.beyond(limits) else ""
        rows.append([drift.model, drift.kind, drift.name, *numbers, *measures, _change(change, share=share), beyond])
    table(headers, rows, right=headers[3:8])
    say()
    say("Drifted is what reaches ", ", ".join(f"{name} {value:g}" for name, value in limits.items()))


def _number(value: float | None, *, share: bool) -> str:
    if value is None:
        return ""
    return f"{value:.1%}" if share else f"{value:,.2f}"


def _change(value: float | None, *, share: bool) -> str:
    if value is None:
        return ""
    return f"{value * 100:.1f} points" if share else f"{value:.3f}"


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _data(drift: Drift, limits: Mapping[str, float]) -> dict[str, Any]:
    return {
        "of": drift.model,
        "kind": drift.kind,
        "name": drift.name,
        "before": drift.before,
        "now": drift.now,
        **{name: drift.measures.get(name) for name in ("psi", "ks", "share", "loss")},
        "drifted": drift.beyond(limits),
    }
