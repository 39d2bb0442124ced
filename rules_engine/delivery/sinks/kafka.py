"""A Kafka topic: an idempotent producer, with the entity as the key, so that an entity's actions keep their order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rules_engine.delivery.sinks.base import DELIVERED, Outcome, Verdict, expand
from rules_engine.errors import MissingExtraError, ProjectError
from rules_engine.rules.triggers.nodes import KafkaSettings
from rules_engine.triggers.actions import Action

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer


class KafkaSink:
    """Produces actions to a topic, each with its key as the header ``idempotency-key``.

    Parameters
    ----------
    settings
        as they are in the project's definitions.

    Raises
    ------
    MissingExtraError
        if the package for it is not installed.
    ProjectError
        if an environment variable is not set, or librdkafka does not know an option.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise MissingExtraError("confluent-kafka", "kafka", f"the sink `{settings.name}`") from None
        self._kafka = confluent_kafka
        self._settings = settings
        self._timeout = settings.timeout / 1_000_000
        options = {name: expand(value, settings.name) for name, value in settings.options}
        self._options: dict[str, Any] = {
            **options,
            "bootstrap.servers": expand(settings.brokers, settings.name),
            "enable.idempotence": True,
            "message.timeout.ms": max(1, settings.timeout // 1000),
            "logger": _quiet(),
        }
        self._producer: Producer | None = None
        self._open()

    def _open(self) -> Producer:
        if self._producer is None:
            try:
                self._producer = self._kafka.Producer(self._options)
            except (self._kafka.KafkaException, ValueError) as error:
                hint = "look at its `options` in the `project:` document"
                raise ProjectError(f"the sink `{self._settings.name}` cannot be opened: {error}", hint=hint) from None
        return self._producer

    def send(self, actions: Sequence[Action]) -> Sequence[Outcome]:
        """Produce actions, and wait until the brokers have them."""
        late = Outcome(Verdict.RETRY, "timeout", f"not confirmed within {self._timeout:g} s", is_sick=True)
        outcomes: list[Outcome] = [late] * len(actions)
        is_fatal = False

        def done(place: int, error: KafkaError | None, _: object = None) -> None:
            nonlocal is_fatal
            outcomes[place] = DELIVERED if error is None else self._judge(error)
            is_fatal = is_fatal or (error is not None and error.fatal())

        producer = self._open()
        for place, action in enumerate(actions):
            headers: list[tuple[str, str | bytes | None]] = [("idempotency-key", action.key)]
            key, told = action.entity.encode(), partial(done, place)
            try:
                producer.produce(self._settings.topic, action.body(), key, headers=headers, on_delivery=told)
            except BufferError:
                outcomes[place] = Outcome(Verdict.RETRY, "full", "the producer's queue is full", is_sick=True)
            except self._kafka.KafkaException as error:
                done(place, error.args[0])
        # The time of each message is limited, so this ends; what does not is given up, and sent again with its key.
        if producer.flush(self._timeout + 2) > 0:
            producer.purge()
            producer.flush(1)
        if is_fatal:
            self._producer = None  # it takes nothing any more
        return outcomes

    def _judge(self, error: KafkaError) -> Outcome:
        codes = self._kafka.KafkaError
        message = f"{error.name()}: {error.str()}"
        if error.code() in (codes.MSG_SIZE_TOO_LARGE, codes.INVALID_MSG, codes.INVALID_RECORD):
            return Outcome(Verdict.REFUSED, error.name().strip("_").lower(), message)
        return Outcome(Verdict.RETRY, error.name().strip("_").lower(), message, is_sick=True)

    def hurry(self) -> None:
        """A batch is short."""

    def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            self._producer.flush(1)
            self._producer = None


def _quiet() -> Any:
    """Where librdkafka logs: it would write to the standard error output else."""
    import logging

    return logging.getLogger("rules_engine.kafka")
