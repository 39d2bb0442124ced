"""The output of `segments model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rules_engine.cli.common.output import plural, say, table, warn
from rules_engine.cli.common.versions import Pages
from rules_engine.clock import format_instant
from rules_engine.ml.propensity.attach import Scored
from rules_engine.ml.propensity.fit import describe
from rules_engine.ml.propensity.metrics import Difference
from rules_engine.ml.propensity.model import MODELS, PropensityModel
from rules_engine.ml.propensity.plan_data import publish
from rules_engine.ml.propensity.report import METRICS, interval, lift_table, metric_cells, number
from rules_engine.ml.propensity.retrain import ModelFitRun
from rules_engine.ml.versions.store import VersionStore
from rules_engine.targets.scorer import FeatureEffect

_METRIC_HEADERS = ["users at cuts", "did it", "mean score", *METRICS.values()]


def day(instant: int) -> str:
    """Return an instant, without the time if that is midnight."""
    return format_instant(instant).removesuffix("T00:00:00Z")


def minute(instant: int) -> str:
    """Return an instant to the minute."""
    return format_instant(instant)[:16].replace("T", " ")


def show_fit(model: PropensityModel, *, unchanged: bool = False) -> None:
    """Print a model: what it was learned from, how good it is, and against what."""
    best, definition = model.best, model.definition
    same = " (the same as before)" if unchanged else ""
    parameters = ", ".join(f"{name}: {value:g}" for name, value in best.parameters.items())
    say(f"{definition.name} {model.version}{same}: {definition.target}")
    say(f"{best.algorithm} ({parameters}), the best of {len(model.trials)}; calibration: {definition.calibration}")
    say(f"learned from {describe(model.train)}; {model.train.rate:.1%} did it")
    say(f"judged on {describe(model.test)}; {model.test.rate:.1%} did it")
    if model.skipped:
        say(f"{plural(len(model.skipped), 'cut')} in between left out: the horizon reaches into the time of the test")
    say()
    judged = model.judgement
    rows = [["the model", *metric_cells(judged.overall)]]
    rows += [[f"recency-frequency {name}", *metric_cells(metrics)] for name, metrics in judged.baselines.items()]
    table(["scored by", *_METRIC_HEADERS], rows, right=_METRIC_HEADERS)
    show_differences(
        {f"recency-frequency {name}": differences for name, differences in judged.better.items()}, "the model minus"
    )
    say()
    headers, cells = lift_table(model)
    table(headers, cells, right=headers)
    say()
    table(
        ["feature", "importance"],
        [[entry.feature, f"{entry.loss:.4f}"] for entry in judged.importance],
        right=["importance"],
    )


def show_differences(by_name: Mapping[str, Sequence[Difference]], what: str) -> None:
    """Print by how much a model is better than others, with intervals."""
    rows = [[name, *map(interval, differences)] for name, differences in by_name.items()]
    table([what, *METRICS.values()], rows, right=list(METRICS.values()))


def show_compared(first: PropensityModel, second: PropensityModel) -> None:
    """Print two versions side by side."""
    headers = [first.version, second.version]
    pairs = [(first.judgement.overall, second.judgement.overall)]
    rows = [
        ["algorithm", first.best.algorithm, second.best.algorithm],
        ["features", str(len(first.features)), str(len(second.features))],
        ["learned until", day(first.train.until), day(second.train.until)],
        ["judged from", day(first.test.cuts[0]), day(second.test.cuts[0])],
    ]
    for name, shown in METRICS.items():
        rows += [[shown, *(number(getattr(metrics, name), 4) for metrics in pair)] for pair in pairs]
    rows += [["did it", *(f"{metrics.rate:.1%}" for metrics in pair)] for pair in pairs]
    table(["", *headers], rows, right=headers)
    if not first.test.is_judged_like(second.test):
        say("They were judged on different rows, so their metrics do not compare as they are")
    for sign, model, other in (("+", second, first), ("-", first, second)):
        for feature in sorted(set(model.features) - set(other.features)):
            say(f"  {sign} {feature}")


def version_row(model: PropensityModel) -> list[str]:
    """Return a version for the table of `list`."""
    judged = model.judgement.overall
    return [
        model.version,
        minute(model.created_at),
        model.best.algorithm,
        f"{day(model.train.cuts[0])} to {day(model.train.until)}",
        f"{model.train.rows:,}",
        number(judged.roc_auc),
        number(judged.average_precision),
        number(judged.brier, 4),
        model.checksum.removeprefix("sha256:")[:12],
    ]


def version_data(model: PropensityModel, store: VersionStore[PropensityModel]) -> dict[str, Any]:
    """Return a version as JSON data."""
    judged = model.judgement.overall
    return {
        "version": model.version,
        "created_at": format_instant(model.created_at),
        "as_of": format_instant(model.as_of),
        "algorithm": model.best.algorithm,
        "parameters": model.best.parameters,
        "learned_until": format_instant(model.train.until),
        "rows": model.train.rows,
        "roc_auc": judged.roc_auc,
        "average_precision": judged.average_precision,
        "brier": judged.brier,
        "checksum": model.checksum,
        "attached": model.version == store.attached(),
        "promoted": model.version == store.promoted(),
    }


def show_scored(model: PropensityModel, scored: Scored, as_of: int) -> None:
    """Print what a run of scores did."""
    say(
        f"{model.definition.name} {model.version}: scores for {scored.users:,} users as of {day(as_of)}, "
        f"on average {scored.mean:.1%}"
    )
    if scored.left_out:
        say(f"{scored.left_out:,} users have none, because all of the model's features are missing")
    if not scored.online:
        say("The online store has newer scores, and keeps them")
    say()
    rows = [
        [f"{part / 10:.1f} to {(part + 1) / 10:.1f}", f"{count:,}", f"{count / scored.users:.1%}"]
        for part, count in enumerate(scored.parts)
    ]
    table(["score", "users", "share"], rows, right=["users", "share"])
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in scored.seconds.items())
    say(f"Took: {stages}")


def show_reasons(what: str, percentile: float, reasons: list[FeatureEffect], values: Mapping[str, str]) -> None:
    """Print why somebody has their score."""
    say(f"{what}, higher than {percentile:.0%} of the users in its test")
    say()
    rows = [
        [reason.feature, values[reason.feature], value_text(reason.typical), f"{reason.effect:+.4f}"]
        for reason in reasons
    ]
    table(["feature", "value", "typical", "effect"], rows, right=["value", "typical", "effect"])
    say("effect: how much higher the score is than with the feature's values of 25 other users, on average")


def value_text(value: Any) -> str:
    """Return a feature's value for a table.

    >>> value_text(None), value_text(1.5), value_text("mobile")
    ('missing', '1.5', 'mobile')
    """
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def fitted_data(store: VersionStore[PropensityModel], run: ModelFitRun, why: str) -> dict[str, Any]:
    """Return what a fit did, as JSON data."""
    model, compared = run.model, run.compared
    return {
        **version_data(model, store),
        "model": model.name,
        "fitted": True,
        "why": why,
        "new": run.is_new,
        "file": str(store.file(model.version)),
        "judgement": model.content()["judgement"],
        "compared_with": compared and compared.promoted,
        "not_compared": run.not_compared or None,
        "differences": [asdict(difference) for difference in (compared.differences if compared else ())],
        "refused": str(run.refusal) if run.refusal else None,
    }


def show_fitted(store: VersionStore[PropensityModel], run: ModelFitRun, why: str, report: Path) -> None:
    """Print what a fit did, and what can be done next."""
    model = run.model
    if why:
        say(f"Fitted anew: {why}")
    show_fit(model, unchanged=not run.is_new)
    say()
    if run.compared is not None:
        show_differences({f"{run.compared.promoted}, on the same rows": run.compared.differences}, "it minus")
    say(f"The report is {report}")
    if run.not_compared and run.refusal is None:
        warn(f"not compared with {store.promoted()}: {run.not_compared}")
    if store.promoted() == model.version:
        say("It is promoted: `segments model score` gives everyone a score")
    else:
        stays = f"{store.promoted()} stays promoted" if store.promoted() else "No version is promoted"
        say(f"{stays}: `segments model promote {model.version}` lets this one count")


def _compared_data(first: PropensityModel, second: PropensityModel, store: VersionStore[PropensityModel]) -> Any:
    rows = [version_data(model, store) for model in (first, second)]
    return {"same_test_rows": first.test.is_judged_like(second.test), "versions": rows}


_HEADERS = (
    "version", "fitted", "algorithm", "learned from", "rows", "ROC AUC", "avg precision", "Brier", "checksum",
)  # fmt: skip

PAGES = Pages(
    kind=MODELS,
    headers=_HEADERS,
    right=_HEADERS[4:8],
    row=version_row,
    data=version_data,
    show=show_fit,
    compare=show_compared,
    compared_data=_compared_data,
    after_promotion=publish,
    next_step="Next: `segments model score` gives everyone a score by it",
)
