"""The parts of a worker for the definitions of one read plan."""

from __future__ import annotations

from rules_engine.folders import Project
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.redis.pipe import Pipe
from rules_engine.redis.store_mark import StoreMark
from rules_engine.sdk.rules import Rules
from rules_engine.stream.entity_steps import EntitySteps
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.intake import Intake
from rules_engine.stream.publishing import Publisher
from rules_engine.stream.sweeper import Sweeper
from rules_engine.stream.timers import Timers


class Desk:
    """The parts of a worker that depend on the definitions. Made anew whenever definitions are applied."""

    def __init__(self, project: Project, rules: Rules, pipe: Pipe) -> None:
        plan = rules.plan
        self.rules = rules
        self.latest = plan.now
        self.sink = EventSink(project, rules)
        self.states_name = rules.events.name
        self.timers = Timers(pipe, plan.project)
        self.intake = Intake(pipe, plan.project, self.timers)
        self.publisher = Publisher(project, plan.project, self.sink.client)
        self.steps = EntitySteps(rules, pipe, self.timers, self.publisher.publish, self.publisher.confirm)
        key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self.sweeper = Sweeper(self.steps, self.timers, self.sink.client, plan.project, key)
        self._mark = StoreMark(self.sink.client, plan.project)
        self._pipe = pipe

    def states_are_complete(self) -> bool:
        """Say whether the store holds the states that these definitions need."""
        return not self.rules.events.requirements.events or self._mark.states == self.states_name

    def states_are_lost(self) -> bool:
        """Say whether the store holds no states, and none are being built: it was emptied or replaced."""
        return self._mark.states is None and not self._mark.is_building

    def close(self) -> None:
        """Close the connections."""
        self._pipe.close()
        self.sink.close()
