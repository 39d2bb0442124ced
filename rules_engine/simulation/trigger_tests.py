"""Run the cases of triggers in ``*.test.yaml`` files: one user through the machine, on a simulated clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from rules_engine.clock import format_instant
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.simulation.case_files import ExpectedStep, TriggerCase
from rules_engine.simulation.entity import Simulated
from rules_engine.triggers.policy import is_held_out
from rules_engine.triggers.record import MembershipChange, Outgoing, State, Transition, TriggerStep


def differences(case: TriggerCase) -> Iterator[tuple[str, str]]:
    """Return what is otherwise than the case expects, each with everything that happened."""
    outgoing = happened(case)
    steps = [each for each in outgoing if isinstance(each, TriggerStep) and each.trigger == case.trigger]
    story = "\n".join(_line(each) for each in outgoing if _concerns(case, each)) or "nothing happened"
    for word, state, expected in (
        ("fires", State.FIRED, case.fires),
        ("cancelled", State.CANCELLED, case.cancelled),
        ("suppressed", State.SUPPRESSED, case.suppressed),
    ):
        actual = [each for each in steps if each.state is state]
        if len(actual) != len(expected) or any(map(_differs, expected, actual)):
            yield f"{word}: expected {_expected(expected)}, got {_shown(actual, expected)}", story


def happened(case: TriggerCase) -> list[Outgoing]:
    """Return what happens to the entity of a case, which is known when it starts."""
    inputs = case.inputs
    entity = _not_held_out(case) if case.entity is None else case.entity
    features = EntityFeatures(entity, inputs.features, inputs.updated_at, inputs.expires_at)
    before = [event for event in inputs.events if event.at <= case.start]
    user = Simulated(case.rules, features, before, case.start, is_known=True)
    return list(user.run([(event.at, event) for event in inputs.events[len(before) :]], case.end))


def _not_held_out(case: TriggerCase) -> str:
    """Return an entity that the trigger does not hold out, if there is one."""
    trigger = case.rules.triggers[case.trigger]
    names = (f"somebody {number}" for number in range(1_000))
    return next((name for name in names if not is_held_out(trigger, name)), "somebody")


def _differs(expected: ExpectedStep, step: TriggerStep) -> bool:
    if expected.at != step.at or (expected.reason is not None and expected.reason is not step.reason):
        return True
    return any(name not in step.payload or step.payload[name] != value for name, value in expected.payload)


def _expected(outcomes: Sequence[ExpectedStep]) -> str:
    return _listed((step.at, step.reason.value if step.reason else "", dict(step.payload)) for step in outcomes)


def _shown(steps: Sequence[TriggerStep], expected: Sequence[ExpectedStep]) -> str:
    """List the steps as the case compares them: of the payload only the names that it gives anywhere."""
    names = {name for step in expected for name, _ in step.payload}
    return _listed(
        (
            step.at,
            step.reason.value if step.reason else "",
            {name: value for name, value in step.payload.items() if name in names},
        )
        for step in steps
    )


def _listed(outcomes: Iterable[tuple[int, str, dict[str, object]]]) -> str:
    texts = []
    for at, reason, payload in outcomes:
        values = orjson.dumps(payload).decode() if payload else ""
        texts.append(" ".join(filter(None, [format_instant(at), reason, values])))
    return ", ".join(texts) or "none"


def _concerns(case: TriggerCase, each: Outgoing) -> bool:
    if isinstance(each, TriggerStep):
        return each.trigger == case.trigger
    return each.segment == case.rules.triggers[case.trigger].segment


def _line(each: Outgoing) -> str:
    at = format_instant(each.at)
    if isinstance(each, Transition):
        words = {
            MembershipChange.ENTER: "enters",
            MembershipChange.EXIT: "leaves",
            MembershipChange.BASELINE: "is at the start in",
        }
        return f"{at}  {words[each.change]} {each.segment} ({each.cause})"
    reason = "" if each.reason is None else f" ({each.reason.value})"
    due = f", due {format_instant(each.due)}" if each.state is State.PENDING else ""
    return f"{at}  {each.trigger} {each.state.value}{reason}{due}"
