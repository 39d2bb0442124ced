"""A decision: variants with values, and ordered rules of who gets which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.allocation import Allocation
from rules_engine.rules.nodes import Condition, Segment
from rules_engine.rules.program import Program


@dataclass(frozen=True, slots=True)
class Variant:
    """Something that an entity may get. ``content`` is its value as JSON text."""

    name: str
    content: str

    @property
    def value(self) -> Any:
        """Return the value: a copy that the caller may change."""
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Serve:
    """Serves one variant."""

    variant: str


@dataclass(frozen=True, slots=True)
class Split:
    """Serves several variants, each to the share of entities that its weight says; weights sum to 1."""

    seed: str
    variants: tuple[str, ...]
    weights: tuple[float, ...]

    @property
    def allocation(self) -> Allocation:
        """Return how entities are divided among the variants."""
        return Allocation(self.seed, self.variants, self.weights)


@dataclass(frozen=True, slots=True)
class ExperimentRef:
    """Serves the arms of an experiment."""

    name: str


Served = Serve | Split | ExperimentRef


@dataclass(frozen=True, slots=True)
class Rule:
    """Serves something where a condition is true; without one, to everybody that no rule before it decided on."""

    serve: Served
    when: Condition | None = None
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """A checked decision: the first rule that serves somebody decides, else the default.

    Attributes
    ----------
    type
        what the values are: ``boolean``, ``string``, ``number``, ``object`` or ``array``. A value may be null instead.
    default
        the name of the variant that is served where no rule decides.
    public
        whether browsers and apps may ask about it.
    """

    name: str
    variants: tuple[Variant, ...]
    rules: tuple[Rule, ...]
    default: str
    type: str
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    public: bool = False
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    def variant(self, name: str) -> Variant:
        """Return a variant by its name."""
        return next(variant for variant in self.variants if variant.name == name)

    def condition_name(self, rule: int) -> str:
        """Return the name of the hidden segment of a rule's condition; rules are counted from 1."""
        return f"decision.{self.name}.rule_{rule}"

    @property
    def conditions(self) -> Iterator[tuple[str, Rule]]:
        """Yield the rules with a condition, by the name of their hidden segment."""
        return ((self.condition_name(at), rule) for at, rule in enumerate(self.rules, 1) if rule.when is not None)

    @property
    def experiments(self) -> tuple[str, ...]:
        """Return the names of the experiments that its rules serve, in order."""
        return tuple(rule.serve.name for rule in self.rules if isinstance(rule.serve, ExperimentRef))


def hidden_segments(decisions: Iterable[Decision]) -> dict[str, Segment]:
    """Return the conditions of rules as segments, named ``decision.NAME.rule_1`` and so on.

    >>> from rules_engine.rules.nodes import SegmentRef
    >>> rules = (Rule(Serve("on"), SegmentRef("vip")), Rule(Serve("off")))
    >>> decision = Decision("banner", (Variant("on", "true"), Variant("off", "false")), rules, "off", "boolean")
    >>> list(hidden_segments([decision]))
    ['decision.banner.rule_1']
    """
    return {
        name: Segment(name, rule.when, span=rule.span)
        for decision in decisions
        for name, rule in decision.conditions
        if rule.when is not None
    }


def with_decisions(program: Program, decisions: Iterable[Decision]) -> Program:
    """Return the segments together with the conditions of decisions."""
    hidden = hidden_segments(decisions)
    return Program({**program.segments, **hidden}) if hidden else program
