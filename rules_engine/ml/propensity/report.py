"""A fit as one HTML file: lift, gain, calibration, importance and groups, for people who address customers.

Without matplotlib the page has its tables, and says that the pictures need it.
"""

from __future__ import annotations

from rules_engine.clock import format_instant
from rules_engine.ml.propensity.definition import duration_text
from rules_engine.ml.propensity.fit import describe
from rules_engine.ml.propensity.metrics import Difference, ScoreMetrics
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.report.page import Note, Page, PageTable, Picture, Section
from rules_engine.ml.report.pictures import GREY, as_svg, can_draw, colour, drawing

#: What metrics are called.
METRICS = {"roc_auc": "ROC AUC", "average_precision": "average precision", "brier": "Brier score"}


def page(model: PropensityModel) -> Page:
    """Return the report of a stored model."""
    judged, definition = model.judgement, model.definition
    first = judged.lift[0]
    report = Page(
        title=f"{definition.name} {model.version}",
        lead=definition.description or f"How likely a user is to do it: {definition.target}.",
        facts={
            "ROC AUC": number(judged.overall.roc_auc),
            "average precision": number(judged.overall.average_precision),
            "did it": f"{judged.overall.rate:.1%}",
            "in the best tenth": f"{first.rate:.1%}",
            "lift of the best tenth": f"{first.lift:.1f}",
        },
        footer=_footer(model),
    )
    _ranking(report.section("Whom to address", _ranking_lead(model)), model)
    _trust(
        report.section("Can the numbers be believed?", "A score of 20% should mean that one in five does it."), model
    )
    _baseline(report.section("Is it better than recency and frequency?", _BASELINE_LEAD), model)
    _importance(report.section("What it looks at", _IMPORTANCE_LEAD), model)
    if judged.subgroups:
        _subgroups(report.section("Group by group", _SUBGROUP_LEAD), model)
    _origin(report.section("Where it comes from"), model)
    return report


_BASELINE_LEAD = (
    "The same test rows scored by recency and frequency alone. The range is the 95% interval of a bootstrap that draws "
    "users: if it contains 0, the difference may be luck."
)
_IMPORTANCE_LEAD = (
    "How much ROC AUC is lost when a feature's values are shuffled among users. Features that say the same share their "
    "importance."
)
_SUBGROUP_LEAD = (
    "Addressed is the share of the group that is in the best tenth of all; found, the share of those in the group who "
    "did it that is in it. Large differences between groups are a reason to look closer before users are treated by "
    "the score."
)


def number(value: float | None, digits: int = 3) -> str:
    """Return a metric for people; there is none where everyone did it, or nobody.

    >>> number(0.12345), number(None)
    ('0.123', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def interval(difference: Difference) -> str:
    """Return a difference with its interval.

    >>> interval(Difference("roc_auc", 0.01, -0.002, 0.02))
    '+0.0100 (-0.0020 to +0.0200)'
    """
    return f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"


def _ranking_lead(model: PropensityModel) -> str:
    first, all_rows = model.judgement.lift[0], model.judgement.overall
    return (
        f"Of the tenth with the highest scores {first.rate:.0%} did it, against {all_rows.rate:.0%} of all: "
        f"{first.lift:.1f} times as many. They are {first.gain:.0%} of all who did it."
    )


def _ranking(section: Section, model: PropensityModel) -> None:
    if can_draw():
        section.add(_lift_picture(model), _gain_picture(model))
    else:
        section.add(Note("Pictures need matplotlib: pip install 'feast-segments[plots]'"))
    headers, rows = lift_table(model)
    section.add(PageTable(headers, rows, right=headers, caption="By score, the highest first."))


def lift_table(model: PropensityModel) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows of the lift and gain table."""
    headers = ["tenth", "users at cuts", "did it", "rate", "scores from", "lift so far", "gain so far"]
    rows = []
    for row in model.judgement.lift:
        shares = [f"{row.rate:.1%}", f"{row.lowest:.3f}", f"{row.lift:.2f}", f"{row.gain:.1%}"]
        rows.append([str(row.part), f"{row.rows:,}", f"{row.did:,}", *shares])
    return headers, rows


def _lift_picture(model: PropensityModel) -> Picture:
    judged = model.judgement
    with drawing(5.4, 3.8) as (figure, axes):
        parts = [row.part * 10 for row in judged.lift]
        axes.bar(parts, [row.rate * 100 for row in judged.lift], width=7, color=colour(0))
        axes.axhline(judged.overall.rate * 100, color=GREY, linewidth=1.2)
        axes.annotate("all", (parts[-1], judged.overall.rate * 100), xytext=(0, 3), textcoords="offset points")
        axes.set(xlabel="tenths by score, the highest first", ylabel="did it, %", title="Who does it, by score")
        axes.set_xticks(parts, [str(row.part) for row in judged.lift])
        axes.grid(axis="x", visible=False)
        data = as_svg(figure)
    return Picture(data, "The share of users who did it in each tenth of the scores.", "The line is the share of all.")


def _gain_picture(model: PropensityModel) -> Picture:
    judged = model.judgement
    with drawing(5.4, 3.8) as (figure, axes):
        shares = [0, *(row.part * 10 for row in judged.lift)]
        axes.plot(shares, [0, *(row.gain * 100 for row in judged.lift)], color=colour(0), marker="o", label="the model")
        other = [0, *(row.gain * 100 for row in judged.baseline_lift)]
        axes.plot(shares, other, color=colour(1), linestyle="--", label="recency and frequency")
        axes.plot([0, 100], [0, 100], color=GREY, linewidth=1.2, label="at random")
        axes.set(
            xlabel="users addressed, %", ylabel="of those who do it, reached, %", title="What addressing some reaches"
        )
        axes.legend(loc="lower right")
        data = as_svg(figure)
    return Picture(data, "Cumulative gain of the model against the baseline and chance.", "Higher is better.")


def _trust(section: Section, model: PropensityModel) -> None:
    judged = model.judgement
    if can_draw():
        with drawing(5.4, 3.8) as (figure, axes):
            predicted = [row.mean * 100 for row in judged.calibration]
            happened = [row.rate * 100 for row in judged.calibration]
            top = max([*predicted, *happened]) * 1.05
            axes.plot([0, top], [0, top], color=GREY, linewidth=1.2, label="as it should be")
            axes.plot(predicted, happened, color=colour(0), marker="o", label="tenths of the users")
            axes.set(xlabel="mean score, %", ylabel="did it, %", title="Said and happened")
            axes.legend(loc="upper left")
            data = as_svg(figure)
        section.add(
            Picture(data, "Mean score against the share who did it, by tenth.", "Below the line: too high a score.")
        )
    section.add(
        PageTable(
            ["cut", "users", "did it", "mean score", *METRICS.values()],
            [[cut.removesuffix("T00:00:00Z"), *metric_cells(metrics)] for cut, metrics in judged.by_cut.items()],
            right=["users", "did it", "mean score", *METRICS.values()],
            caption=f"Each test cut by itself: what was said as of it, and what happened {_horizon(model)} after.",
        )
    )


def metric_cells(metrics: ScoreMetrics) -> list[str]:
    """Return rows, rate, mean score and the metrics, for a table."""
    ranking = [number(metrics.roc_auc), number(metrics.average_precision), number(metrics.brier, 4)]
    return [f"{metrics.rows:,}", f"{metrics.rate:.1%}", f"{metrics.mean:.1%}", *ranking]


def _baseline(section: Section, model: PropensityModel) -> None:
    judged = model.judgement
    rows = [["the model", *metric_cells(judged.overall)[3:]]]
    rows += [[f"recency-frequency {name}", *metric_cells(metrics)[3:]] for name, metrics in judged.baselines.items()]
    section.add(PageTable(["scored by", *METRICS.values()], rows, right=list(METRICS.values())))
    rows = [[f"recency-frequency {name}", *map(interval, differences)] for name, differences in judged.better.items()]
    section.add(
        PageTable(
            ["the model minus", *METRICS.values()],
            rows,
            right=list(METRICS.values()),
            caption="Of the Brier score, an error, less is better.",
        )
    )


def _importance(section: Section, model: PropensityModel) -> None:
    importances = model.judgement.importance
    if can_draw() and importances:
        with drawing(7.5, 0.6 + 0.34 * len(importances)) as (figure, axes):
            names = [feature.feature for feature in reversed(importances)]
            axes.barh(names, [feature.loss for feature in reversed(importances)], color=colour(0))
            axes.set(xlabel="loss of ROC AUC when shuffled")
            axes.grid(axis="y", visible=False)
            data = as_svg(figure)
        section.add(Picture(data, "The importance of each feature.", wide=True))
    else:
        section.add(
            PageTable(
                ["feature", "loss"],
                [[feature.feature, f"{feature.loss:.4f}"] for feature in importances],
                right=["loss"],
            )
        )


def _subgroups(section: Section, model: PropensityModel) -> None:
    headers = ["feature", "group", "users", "did it", "mean score", *METRICS.values(), "addressed", "found"]
    rows = []
    for group in model.judgement.subgroups:
        share = "-" if group.found is None else f"{group.found:.1%}"
        rows.append([group.feature, group.group, *metric_cells(group.metrics), f"{group.addressed:.1%}", share])
    section.add(PageTable(headers, rows, right=headers[2:]))


def _origin(section: Section, model: PropensityModel) -> None:
    best = model.best
    shown = ", ".join(f"{name}: {value:g}" for name, value in best.parameters.items())
    rows = [
        ["target", str(model.definition.target)],
        ["population", model.definition.population or "everyone"],
        ["learned from", f"{describe(model.train)}; {model.train.rate:.1%} did it"],
        ["judged on", f"{describe(model.test)}; {model.test.rate:.1%} did it"],
        ["algorithm", f"{best.algorithm} ({shown}), calibration: {model.definition.calibration}"],
        ["chosen among", f"{len(model.trials)}, by {model.definition.search.score} in cross-validation by user"],
    ]
    section.add(PageTable(["", ""], rows))
    trials = sorted(model.trials, key=lambda trial: -trial.score)
    cells = []
    for trial in trials:
        shown = ", ".join(f"{name}: {value:g}" for name, value in trial.parameters.items())
        cells.append([trial.algorithm, shown, f"{trial.score:.4f}", f"{trial.deviation:.4f}"])
    section.add(PageTable(["algorithm", "parameters", "score", "deviation"], cells, right=["score", "deviation"]))


def _horizon(model: PropensityModel) -> str:
    return duration_text(model.definition.target.within)


def _footer(model: PropensityModel) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in model.libraries.items())
    return f"Fitted {format_instant(model.created_at)}; {libraries}; {model.checksum}"
