"""`segments drift`: how far today's users are from those that clusters and models were fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common.drift_limits import FailIf
from rules_engine.cli.common.options import HERE, At, Format, OutputFormat, Repo
from rules_engine.cli.common.output import print_json, say, table, working
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.ml.drift import Drift


def drift(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Clusters or models. Default: all that were fitted.")
    ] = None,
    fail_if: FailIf = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show how far users have drifted since the fits.

    For each feature that clusters look at: the population stability index (psi) and the Kolmogorov-Smirnov statistic
    (ks) against the users of the fit. For each cluster, how much its share has changed; for each model, its scores, and
    how good they turned out to be. What is beyond the limits is marked. What users are labelled with now counts.

    In a crontab, `segments drift --fail-if psi=0.25 --fail-if ks=0.2` says by its exit code that it is time to look;
    `segments cluster fit --if-drift` refits if it is.
    """
    with working("Loading Feast") as show:
        from rules_engine.ml.drift import beyond, parse_limits
        from rules_engine.ml.project_drift import project_drift

        drifts = list(project_drift(Project.open(repo), names or [], at, show))
    limits = parse_limits(fail_if or [])
    if output_format is Format.JSON:
        print_json([_data(drift, limits) for drift in drifts])
    else:
        _show(drifts, limits)
    too_far = beyond(drifts, limits)
    if fail_if and too_far:
        shown = listing([drift.name for drift, _ in too_far])
        raise DataError(
            f"drifted: {shown}",
            hint="`segments cluster fit --if-drift` and `segments model fit --if-drift` fit anew to today's users",
        )


def _show(drifts: Sequence[Drift], limits: Mapping[str, float]) -> None:
    headers = ["of", "what", "name", "before", "now", "psi", "ks", "change", ""]
    rows = []
    for drift in drifts:
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
