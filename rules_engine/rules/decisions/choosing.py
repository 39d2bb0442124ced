"""Choose the variant of a decision: a pure function of the conditions that are true, the entity's key, and the instant.

Every target finds with its own means which conditions of the rules are true, and takes the variant from here; columns
and SQL choose by the same allocations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from rules_engine.rules.allocation import Allocation, first_bucket
from rules_engine.rules.buckets import BUCKETS, bucket
from rules_engine.rules.decisions.nodes import Decision, ExperimentRef, Rule, Serve, Split
from rules_engine.rules.experiments.nodes import Experiment, Slice, Status

#: So many instants are looked at for the next change, while the conditions change and the variant does not.
LOOKED_AT = 10_000

#: The seed of the buckets that say who is held out of all experiments.
HOLDOUT_SEED = "holdout"


class ChoiceReason(StrEnum):
    """Says why a variant was chosen."""

    RULE = "rule"  # a rule serves it to all
    SPLIT = "split"  # a rule serves it to a share
    EXPERIMENT = "experiment"  # an arm of a running experiment
    STOPPED = "stopped"  # the control of a stopped experiment
    SHIPPED = "shipped"  # the winner of an experiment
    DEFAULT = "default"  # no rule decided


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that an entity gets, and why.

    Attributes
    ----------
    variant
        its name.
    reason
        why.
    rule
        the rule that decided, counted from 1; None if none did.
    experiment, arm, phase
        of a rule with an experiment, also of a stopped one.
    bucket
        where a share or an arm was chosen by it: the entity's bucket as a number from 0 to below 1.
    """

    variant: str
    reason: ChoiceReason
    rule: int | None = None
    experiment: str | None = None
    arm: str | None = None
    phase: int | None = None
    bucket: float | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """The hidden segments of one entity as time goes on, if no new data comes.

    Attributes
    ----------
    at
        gives those that are true at an instant.
    change_after
        gives the first instant after one at which others are true; None if there is none.
    """

    at: Callable[[int], AbstractSet[str]]
    change_after: Callable[[int], int | None]


@dataclass(frozen=True, slots=True)
class Skip:
    """Says why a rule whose condition is true did not decide."""

    rule: int
    why: str


#: What a rule with a true condition gives an entity.
_Served = Choice | Skip


class Chooser:
    """Chooses the variant of a decision. Immutable, and safe to share between threads.

    Parameters
    ----------
    decision
        whose rules are followed.
    experiments
        those that the rules name, at least.
    holdout
        the share of entities that take part in no experiment.

    Examples
    --------
    >>> from rules_engine.rules.decisions.nodes import Variant
    >>> from rules_engine.rules.nodes import SegmentRef
    >>> variants = (Variant("none", "null"), Variant("voucher", '"voucher"'))
    >>> decision = Decision("banner", variants, (Rule(Serve("voucher"), SegmentRef("vip")),), "none", "string")
    >>> chooser = Chooser(decision)
    >>> chooser.choose("42", {"decision.banner.rule_1"}, 0).variant, chooser.choose("42", set(), 0).reason.value
    ('voucher', 'default')
    """

    def __init__(
        self, decision: Decision, experiments: Mapping[str, Experiment] | None = None, holdout: float = 0.0
    ) -> None:
        self.decision = decision
        self.experiments = {name: (experiments or {})[name] for name in decision.experiments}
        self.holdout = first_bucket(holdout)
        #: The hidden segments of the rules' conditions.
        self.conditions = frozenset(name for name, _ in decision.conditions)
        self._instants = sorted({at for each in self.experiments.values() for at in each.instants})
        self._rules = [
            (decision.condition_name(number) if rule.when is not None else None, self._server(number, rule))
            for number, rule in enumerate(decision.rules, 1)
        ]
        #: What an entity gets that no rule serves.
        self.default = Choice(decision.default, ChoiceReason.DEFAULT)

    @property
    def reads_entity(self) -> bool:
        """Say whether who gets what depends on the entity's key."""
        return any(not isinstance(rule.serve, Serve) for rule in self.decision.rules)

    def choose(self, entity: str, members: AbstractSet[str], now: int) -> Choice:
        """Return what an entity gets; ``members`` are the hidden segments that are true, others may be among them."""
        for condition, serve in self._rules:
            if condition is None or condition in members:
                served = serve(entity, now)
                if isinstance(served, Choice):
                    return served
        return self.default

    def trace(self, entity: str, members: AbstractSet[str], now: int) -> tuple[Choice, list[Skip]]:
        """Return the same, and which rules whose condition is true were passed over, and why."""
        skipped: list[Skip] = []
        for condition, serve in self._rules:
            if condition is None or condition in members:
                served = serve(entity, now)
                if isinstance(served, Choice):
                    return served, skipped
                skipped.append(served)
        return self.default, skipped

    def next_change(self, entity: str, course: Course, now: int) -> int | None:
        """Return the first instant after now at which the variant differs, if no new data comes; None if never."""
        variant = self.choose(entity, course.at(now), now).variant
        for _ in range(LOOKED_AT):
            following = [at for at in (course.change_after(now), self._instant_after(now)) if at is not None]
            if not following:
                return None
            now = min(following)
            if self.choose(entity, course.at(now), now).variant != variant:
                return now
        return None

    def describe(self, choice: Choice) -> str:
        """Return in a line why a variant was chosen."""
        rule = f"rule {choice.rule}"
        position = "" if choice.bucket is None else f"bucket {choice.bucket:.4f} of "
        match choice.reason:
            case ChoiceReason.RULE:
                return rule
            case ChoiceReason.SPLIT:
                return f"{rule}; {position}`{self._seed(choice)}`"
            case ChoiceReason.EXPERIMENT:
                arm = f"arm `{choice.arm}` of the experiment `{choice.experiment}`"
                return f"{rule}; {position}`{self._seed(choice)}`: {arm}"
            case ChoiceReason.STOPPED:
                return f"{rule}; the experiment `{choice.experiment}` is stopped, without a winner"
            case ChoiceReason.SHIPPED:
                return f"{rule}; `{choice.arm}` won the experiment `{choice.experiment}`"
            case ChoiceReason.DEFAULT:
                return "the default, as no rule decides"
            case _:
                assert_never(choice.reason)

    def _seed(self, choice: Choice) -> str:
        if choice.experiment is not None:
            return self.experiments[choice.experiment].seed
        assert choice.rule is not None
        split = self.decision.rules[choice.rule - 1].serve
        return split.seed if isinstance(split, Split) else ""

    def _instant_after(self, now: int) -> int | None:
        return next((at for at in self._instants if at > now), None)

    # --- rules ------------------------------------------------------------------------------------------------------

    def _server(self, number: int, rule: Rule) -> Callable[[str, int], _Served]:
        match rule.serve:
            case Serve(variant):
                choice = Choice(variant, ChoiceReason.RULE, number)
                return lambda _entity, _now: choice
            case Split():
                return self._split(number, rule.serve.allocation)
            case ExperimentRef(name):
                return self._experiment(number, self.experiments[name])
            case _:
                assert_never(rule.serve)

    def _split(self, number: int, allocation: Allocation) -> Callable[[str, int], _Served]:
        def serve(entity: str, _now: int) -> _Served:
            variant, place = allocation.part_of(entity)
            assert variant is not None  # the weights sum to 1
            return Choice(variant, ChoiceReason.SPLIT, number, bucket=place / BUCKETS[2])

        return serve

    def _experiment(self, number: int, experiment: Experiment) -> Callable[[str, int], _Served]:
        allocation, buckets = experiment.allocation, BUCKETS[experiment.hash_version]
        served = {arm.name: arm.serve for arm in experiment.arms}
        after = experiment.served_after()
        named = (experiment.name, after.name, experiment.phase)
        name, phase = experiment.name, experiment.phase
        draft = Skip(number, f"the experiment `{name}` has not started")
        held_out = Skip(number, "held out of all experiments")
        excluded = Skip(number, f"outside of `{experiment.exclusive}`, which `{name}` has")
        not_covered = Skip(number, f"outside of the coverage of `{name}`")

        def serve(entity: str, now: int) -> _Served:
            status = experiment.status(now)
            if status is Status.DRAFT:
                return draft
            if is_held_out(entity, self.holdout):
                return held_out
            if status is Status.SHIPPED:
                return Choice(after.serve, ChoiceReason.SHIPPED, number, *named)
            if status is Status.STOPPED:
                return Choice(after.serve, ChoiceReason.STOPPED, number, *named)
            if experiment.exclusive is not None and not is_in_slice(entity, experiment.exclusive):
                return excluded
            arm, place = allocation.part_of(entity)
            if arm is None:
                return not_covered
            return Choice(served[arm], ChoiceReason.EXPERIMENT, number, name, arm, phase, place / buckets)

        return serve


def is_held_out(entity: str, holdout: int) -> bool:
    """Say whether an entity takes part in no experiment; ``holdout`` is the first bucket that does."""
    return bool(holdout) and bucket(HOLDOUT_SEED, entity) < holdout


def is_in_slice(entity: str, part: Slice) -> bool:
    """Say whether an entity is in a part of a group of experiments that exclude each other."""
    start, end = slice_bounds(part)
    return start <= bucket(slice_seed(part), entity, 1) < end


def slice_seed(part: Slice) -> str:
    """Return the seed of a group's buckets, which are of hash version 1, as GrowthBook's name spaces."""
    return f"__{part.group}"


def slice_bounds(part: Slice) -> tuple[int, int]:
    """Return the buckets of a part of a group: the first one, and the first one after it."""
    return first_bucket(part.start, 1), first_bucket(part.end, 1)


def choosers(
    decisions: Iterable[Decision], experiments: Mapping[str, Experiment], holdout: float = 0.0
) -> dict[str, Chooser]:
    """Return the choosers of decisions, by name."""
    return {decision.name: Chooser(decision, experiments, holdout) for decision in decisions}
