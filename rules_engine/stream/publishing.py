"""Publishing what follows from events to the ledger, and actions to the queues of their sinks, as if once."""

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
    """Publishes what the records of entities hold for it.

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
        """Publish it. When it returns, the ledger is on disk, transitions are announced, and actions are queued.

        Raises
        ------
        redis.RedisError
            if the store cannot be used; do it again then.
        """
        if outgoing:
            self._ledger.append(outgoing, now_micros())
            moves = [(entity, one) for entity, one in outgoing if isinstance(one, Transition)]
            announce(self._client, self._name, moves)
        actions = _actions(outgoing)
        if actions:
            enqueue(self._client, self._name, actions)

    def confirm(self, outgoing: Sequence[tuple[str, Outgoing]]) -> None:
        """Note that the records do not hold it any more, so nobody publishes it a second time.

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
        moved = sum(isinstance(one, Transition) and one.change is not MembershipChange.BASELINE for _, one in outgoing)
        return moved, sum(isinstance(one, TriggerStep) and one.state is State.FIRED for _, one in outgoing)


def _actions(outgoing: Sequence[tuple[str, Outgoing]]) -> list[Action]:
    fired = [(entity, one) for entity, one in outgoing if isinstance(one, TriggerStep) and one.sinks]
    return [action for entity, one in fired for action in one.actions(entity)]
