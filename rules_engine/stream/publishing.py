"""Publishes transitions and trigger steps to the ledger, and actions to the queues of their sinks, with one effect.

Publishing twice has the effect of publishing once: readers of the ledger and the queues drop what they have by its key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rules_engine.clock import now_micros
from rules_engine.delivery.dispatch import confirm, enqueue
from rules_engine.folders import Project
from rules_engine.stream.ledger import Ledger
from rules_engine.triggers.actions import Action
from rules_engine.triggers.record import MembershipChange, Outgoing, State, Transition, TriggerStep
from rules_engine.triggers.transition_stream import announce


class Publisher:
    """Publishes the outboxes of entities' records.

    Parameters
    ----------
    project
        the project.
    name
        of Feast's project.
    client
        a redis-py client.
    """

    def __init__(self, project: Project, name: str, client: Any) -> None:
        self._ledger = Ledger.of(project)
        self._name = name
        self._client = client

    def publish(self, outgoing: Sequence[tuple[str, Outgoing]]) -> None:
        """Publish transitions and trigger steps. When it returns, all is on disk, announced and queued.

        Raises
        ------
        redis.RedisError
            if the store cannot be used; call it again then.
        """
        if outgoing:
            self._ledger.append(outgoing, now_micros())
            moves = [(entity, item) for entity, item in outgoing if isinstance(item, Transition)]
            announce(self._client, self._name, moves)
        actions = _actions(outgoing)
        if actions:
            enqueue(self._client, self._name, actions)

    def confirm(self, outgoing: Sequence[tuple[str, Outgoing]]) -> None:
        """Note that no record holds them any more, so that nothing will publish them a second time.

        Raises
        ------
        redis.RedisError
            if the store cannot be used.
        """
        actions = _actions(outgoing)
        if actions:
            confirm(self._client, self._name, actions)

    @staticmethod
    def counted(outgoing: Sequence[tuple[str, Outgoing]]) -> tuple[int, int]:
        """Count the memberships that began or ended, and the triggers that fired."""
        moved = sum(
            isinstance(item, Transition) and item.change is not MembershipChange.BASELINE for _, item in outgoing
        )
        return moved, sum(isinstance(item, TriggerStep) and item.state is State.FIRED for _, item in outgoing)


def _actions(outgoing: Sequence[tuple[str, Outgoing]]) -> list[Action]:
    fired = [(entity, step) for entity, step in outgoing if isinstance(step, TriggerStep) and step.sinks]
    return [action for entity, step in fired for action in step.actions(entity)]
