"""``segments plan``."""

from __future__ import annotations

import html
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, AsOf, Repo, percent
from rules_engine.clock import format_instant, now_micros
from rules_engine.folders import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rules_engine.deploy.movements import Movement, ProjectPlan, Reassignment
    from rules_engine.deploy.stages import ApplyStages, NameChanges, Stage
    from rules_engine.deploy.unchanged import Unchanged


#: How many segments text and Markdown show, those that concern most users; JSON has all.
SHOWN = 20


class PlanFormat(StrEnum):
    """Names the formats in which a plan is printed."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


def plan(
    as_of: AsOf = None,
    fail_if_change: Annotated[
        float | None,
        typer.Option(
            "--fail-if-change",
            metavar="PERCENT",
            parser=percent,
            help="Exit with 1 if a larger part than that of a segment's users enters or leaves, e.g. 20%.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write everyone who moves, to a .parquet, .csv or .jsonl file."),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(
            "--examples", min=0, max=100, metavar="N", help="How many users to explain per segment and direction."
        ),
    ] = 1,
    repo: Repo = HERE,
    output_format: Annotated[
        PlanFormat, typer.Option("--format", help="Text for people, JSON for programs, Markdown for a pull request.")
    ] = PlanFormat.TEXT,
) -> None:
    """Show what applying the files would change, and whom it moves.

    Compares the files with what is applied. For each segment that is added, changed or removed, or that refers to such
    a one, all users are evaluated by both definitions, as of one instant; so it is for decisions. Nothing is changed.
    """
    from rules_engine.deploy.unchanged import unchanged

    project = Project.open(repo)
    no_change = unchanged(project) if out is None else None
    if no_change is not None:
        _show(_of_nothing(no_change, as_of), output_format)
        return
    from rules_engine.deploy.plan import make_plan

    with output.working("Opening the project") as show:
        project_plan = make_plan(
            project,
            as_of,
            out,
            lambda users, done: show(f"Evaluated {users:,} users ({done:.0%})"),
            examples=examples,
            explained=None if output_format is PlanFormat.JSON else SHOWN,
        )
    _show(project_plan, output_format)
    _refuse_large_changes(project_plan, fail_if_change)


def _of_nothing(no_change: Unchanged, as_of: int | None) -> ProjectPlan:
    """Return the plan that changes nothing."""
    from rules_engine.deploy.movements import ProjectPlan

    now = next(instant for instant in (as_of, no_change.plan.now, now_micros()) if instant is not None)
    return ProjectPlan(now, no_change.stages)


def _show(project_plan: ProjectPlan, output_format: PlanFormat) -> None:
    if output_format is PlanFormat.JSON:
        output.print_json(_data(project_plan))
    elif output_format is PlanFormat.MARKDOWN:
        _markdown(project_plan)
    else:
        _text(project_plan)


def _refuse_large_changes(project_plan: ProjectPlan, limit: float | None) -> None:
    if limit is None:
        return
    from rules_engine.deploy.stages import some_of

    uncounted = [movement.segment for movement in project_plan.movements if movement.uncounted is not None]
    if uncounted:
        output.remark(("warning", "bold yellow"), f": --fail-if-change does not see {some_of(uncounted)}")
    over = project_plan.over(limit)
    for movement in over[:SHOWN]:
        output.remark(("error", "bold red"), f": {movement.change:.1%} of `{movement.segment}` moves; {limit:.1%} may")
    if len(over) > SHOWN:
        output.remark(("error", "bold red"), f": so do too many of {output.plural(len(over) - SHOWN, 'segment')} more")
    if over:
        raise typer.Exit(1)


def _text(project_plan: ProjectPlan) -> None:
    if not project_plan.changes_anything:
        output.say("Nothing differs from what is applied")
        return
    shown = _shown(project_plan)
    _movements(project_plan, shown)
    for reassignment in project_plan.decisions:
        output.say(_sentence(reassignment))
    if shown or project_plan.decisions:
        output.say()
    output.say("`segments apply` will, as plan ", (project_plan.stages.id, "bold"))
    for line in stage_lines(project_plan.stages):
        output.say(f"  {line}")


def _movements(project_plan: ProjectPlan, shown: list[Movement]) -> None:
    """Print whom the segments move, with examples."""
    if shown:
        output.say((output.plural(project_plan.users, "user"), "bold"), f" as of {format_instant(project_plan.as_of)}")
        output.table(_HEADERS, [_row(movement) for movement in shown], right=_HEADERS[2:5])
        for rest in _rest(project_plan, shown):
            output.say(rest)
    for movement in shown:
        for remark in _remarks(movement):
            output.say(remark)
        for example in movement.examples:
            output.say()
            output.say((example.entity, "bold"), f" {example.move} {movement.segment}")
            if example.explanation is not None:
                output.say_lines(str(example.explanation))


def stage_lines(stages: ApplyStages) -> list[str]:
    """Return the stages as numbered lines, without those that change nothing."""
    shown = (stage_text(stage) for stage in stages.stages if shows(stage))
    return [f"{number}. {text}" for number, text in enumerate(shown, 1)]


def shows(stage: Stage) -> bool:
    """Tell whether a stage is shown: Feast's registry is always updated, but shown only if definitions changed."""
    from rules_engine.deploy.stages import Register

    return not isinstance(stage, Register) or bool(stage.change)


def stage_text(stage: Stage) -> str:
    """Return a stage as one line."""
    head, *details = stage.lines()
    return f"{head}: {'; '.join(details)}" if details else head


def _shown(project_plan: ProjectPlan) -> list[Movement]:
    from rules_engine.deploy.movements import largest

    return largest(project_plan.movements, SHOWN)


def _rest(project_plan: ProjectPlan, shown: list[Movement]) -> Iterator[str]:
    """Yield a sentence on the segments that are not shown, if there are any."""
    names = {movement.segment for movement in shown}
    rest = [movement for movement in project_plan.movements if movement.segment not in names]
    if rest:
        kinds = Counter(movement.kind for movement in rest)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        moves = f"{sum(each.enters for each in rest):,} enter and {sum(each.leaves for each in rest):,} leave"
        yield f"and {output.plural(len(rest), 'segment')} more ({counts}), in which {moves}; `--format json` lists all"


def _remarks(movement: Movement) -> Iterator[str]:
    """Yield the remarks about a segment that are printed below the table."""
    from rules_engine.deploy.stages import some_of

    if movement.uncounted is not None:
        yield f"{movement.segment} is not counted: {movement.uncounted}"
    if movement.dependents:
        yield f"{movement.segment} is referred to by {some_of(movement.dependents)}"
    for start in movement.starts:
        count = "those" if movement.uncounted is not None else output.plural(movement.moving(start.move), "user")
        word = "enter" if start.move == "enters" else "leave"
        yield f"trigger {start.trigger} starts for {count} who {word} {movement.segment}"


def _sentence(reassignment: Reassignment) -> str:
    """Return what a plan says of one decision: who gets something else, and how many get what."""
    name = reassignment.decision
    if reassignment.uncounted is not None:
        return f"decision {name} is {reassignment.kind}, and not counted: {reassignment.uncounted}"
    before, after = reassignment.before, reassignment.after
    variants = sorted(before.keys() | after.keys())
    if not before or not after:  # it is added or removed
        shares = ", ".join(f"{variant} {(after or before)[variant]:,}" for variant in variants)
        return f"decision {name} is {reassignment.kind}: {shares}"
    shares = ", ".join(f"{variant} {before.get(variant, 0):,} -> {after.get(variant, 0):,}" for variant in variants)
    moved = output.plural(reassignment.moved, "user")
    verb = "gets" if reassignment.moved == 1 else "get"
    return f"decision {name} is {reassignment.kind}: {moved} {verb} another variant ({shares})"


_HEADERS = ["segment", "change", "enter", "leave", "stay"]


def _row(movement: Movement) -> list[str]:
    counts = (movement.enters, movement.leaves, movement.stays)
    shown = ["?"] * 3 if movement.uncounted is not None else [f"{count:,}" for count in counts]
    return [movement.segment, movement.kind, *shown]


def _features(project_plan: ProjectPlan) -> NameChanges:
    from rules_engine.deploy.stages import NameChanges, Register

    changes = [stage.change for stage in project_plan.stages.stages if isinstance(stage, Register)]
    return next((NameChanges(change.added, change.updated, change.removed) for change in changes), NameChanges())


def _markdown(project_plan: ProjectPlan) -> None:
    if not project_plan.changes_anything:
        output.say("Nothing differs from what is applied.")
        return
    lines, shown = [], _shown(project_plan)
    if shown:
        lines += [f"**{output.plural(project_plan.users, 'user')}** as of {format_instant(project_plan.as_of)}", ""]
        lines += ["| segment | change | enter | leave | stay |", "| --- | --- | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(_row(movement))} |" for movement in shown]
        lines += [line for rest in _rest(project_plan, shown) for line in ("", f"{rest}.")]
    for movement in shown:
        lines += [line for remark in _remarks(movement) for line in ("", f"{remark}.")]
        for example in movement.examples:
            if example.explanation is not None:
                title = html.escape(f"{example.entity} {example.move} {movement.segment}")
                fence = ["```text", str(example.explanation), "```"]
                lines += ["", f"<details><summary>{title}</summary>", "", *fence, "", "</details>"]
    lines += [line for reassignment in project_plan.decisions for line in ("", f"{_sentence(reassignment)}.")]
    lines += ["", f"`segments apply` will, as plan `{project_plan.stages.id}`", "", *stage_lines(project_plan.stages)]
    output.say_lines("\n".join(lines))


def _data(project_plan: ProjectPlan) -> dict[str, Any]:
    from rules_engine.deploy.stages import stage_data, to_data

    stages = [stage_data(stage) for stage in project_plan.stages.stages if shows(stage)]
    return {
        "plan": project_plan.stages.id,
        "as_of": format_instant(project_plan.as_of),
        "users": project_plan.users,
        "features": to_data(_features(project_plan)),
        "triggers": to_data(project_plan.stages.of("triggers")),
        "events": to_data(project_plan.stages.of("events")),
        "stages": stages if project_plan.changes_anything else [],
        "segments": [_movement_data(movement) for movement in project_plan.movements],
        "decisions": [_reassignment_data(reassignment) for reassignment in project_plan.decisions],
    }


def _reassignment_data(reassignment: Reassignment) -> dict[str, Any]:
    is_counted = reassignment.uncounted is None
    return {
        "decision": reassignment.decision,
        "change": reassignment.kind,
        "moved": reassignment.moved if is_counted else None,
        "before": reassignment.before if is_counted else None,
        "after": reassignment.after if is_counted else None,
        "uncounted": reassignment.uncounted,
    }


def _movement_data(movement: Movement) -> dict[str, Any]:
    is_counted = movement.uncounted is None
    examples = [
        {
            "entity": example.entity,
            "move": example.move,
            "explanation": None if example.explanation is None else example.explanation.to_dict(),
        }
        for example in movement.examples
    ]
    return {
        "segment": movement.segment,
        "change": movement.kind,
        "enters": movement.enters if is_counted else None,
        "leaves": movement.leaves if is_counted else None,
        "stays": movement.stays if is_counted else None,
        "uncounted": movement.uncounted,
        "dependents": movement.dependents,
        "triggers": [
            {"trigger": start.trigger, "move": start.move, "users": movement.moving(start.move) if is_counted else None}
            for start in movement.starts
        ],
        "examples": examples,
    }
