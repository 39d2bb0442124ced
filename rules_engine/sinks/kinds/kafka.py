"""A Kafka topic: an idempotent producer, with the entity as the key, so that an entity's actions keep their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rules_engine.errors import MissingExtraError, ProjectError
from rules_engine.sinks.base import DELIVERED, Message, Outcome, Sink, Verdict
from rules_engine.sinks.settings import TIMEOUT, SettingError, SinkSettings, text, texts, timeout
from rules_engine.sinks.variables import VARIABLE

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer


#: The options of librdkafka that a sink sets itself: without them an action could be lost, or come twice.
OWN_OPTIONS = frozenset(
    {
        "acks", "bootstrap.servers", "delivery.timeout.ms", "enable.idempotence", "max.in.flight",
        "max.in.flight.requests.per.connection", "message.timeout.ms", "metadata.broker.list", "request.required.acks",
    }
)  # fmt: skip

#: The options of librdkafka whose values have several lines.
PEM = ("ssl.ca.pem", "ssl.certificate.pem", "ssl.key.pem")

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}\Z")


def _check_brokers(brokers: str) -> None:
    if not VARIABLE.search(brokers) and not all(_SERVER.match(part.strip()) for part in brokers.split(",")):
        hint = "write `host:port`, several separated by commas"
        raise SettingError(f"`{brokers}` names no Kafka brokers", hint, code="invalid-address")


def _check_topic(topic: str) -> None:
    if not VARIABLE.search(topic) and (not _TOPIC.match(topic) or topic in (".", "..")):
        hint = "write letters, digits and `. _ -`, at most 249"
        raise SettingError(f"`{topic}` cannot be the name of a topic", hint, code="invalid-name")


def _check_option(name: str, _: str) -> None:
    if name in OWN_OPTIONS:
        message = f"the sink sets `{name}` itself, so that no action is lost or doubled"
        raise SettingError(message, "remove it", code="option-not-allowed", at_key=True)


@dataclass(frozen=True)
class KafkaSettings(SinkSettings):
    """A Kafka topic. ``options`` are those of librdkafka, such as ``sasl.password: ${KAFKA_PASSWORD}``."""

    brokers: str = field(
        metadata=text(
            "The brokers, host:port, several separated by commas.",
            expected="the brokers, `host:port,host:port`",
            check=_check_brokers,
        )
    )
    topic: str = field(
        metadata=text(
            "The topic; the entity is the key of its messages.", expected="the name of a topic", check=_check_topic
        )
    )
    options: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=texts("Options of librdkafka; a password is a ${VARIABLE}.", check=_check_option, lines=PEM),
    )
    timeout: int = field(default=TIMEOUT, metadata=timeout())


class KafkaSink(Sink, kind="kafka", settings=KafkaSettings):
    """Produces actions to a topic, each with its key as the header ``idempotency-key``.

    Parameters
    ----------
    settings
        with the values of variables.
    root
        the project's folder.

    Raises
    ------
    MissingExtraError
        if the package for it is not installed.
    ProjectError
        if librdkafka does not know an option.
    """

    def __init__(self, settings: KafkaSettings, _root: Path) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise MissingExtraError("confluent-kafka", "kafka", f"the sink `{settings.name}`") from None
        self._kafka = confluent_kafka
        self._settings = settings
        self._timeout = settings.timeout / 1_000_000
        self._options: dict[str, Any] = {
            **dict(settings.options),
            "bootstrap.servers": settings.brokers,
            "enable.idempotence": True,
            "message.timeout.ms": max(1, settings.timeout // 1000),
            "logger": _logger(),
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

    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        """Produce actions, and wait until the brokers have them."""
        late = Outcome(Verdict.RETRY, "timeout", f"not confirmed within {self._timeout:g} s", is_sick=True)
        outcomes: list[Outcome] = [late] * len(actions)
        is_fatal = False

        def done(place: int, error: KafkaError | None, _: object = None) -> None:
            nonlocal is_fatal
            outcomes[place] = DELIVERED if error is None else self._outcome(error)
            is_fatal = is_fatal or (error is not None and error.fatal())

        producer = self._open()
        for place, action in enumerate(actions):
            headers: list[tuple[str, str | bytes | None]] = [("idempotency-key", action.key)]
            key, report = action.entity.encode(), partial(done, place)
            try:
                producer.produce(self._settings.topic, action.body(), key, headers=headers, on_delivery=report)
            except BufferError:
                outcomes[place] = Outcome(Verdict.RETRY, "full", "the producer's queue is full", is_sick=True)
            except self._kafka.KafkaException as error:
                done(place, error.args[0])
        # The time of each message is limited, so this ends; a late message is given up, and sent again with its key.
        if producer.flush(self._timeout + 2) > 0:
            producer.purge()
            producer.flush(1)
        if is_fatal:
            self._producer = None  # after a fatal error it takes no more messages
        return outcomes

    def _outcome(self, error: KafkaError) -> Outcome:
        codes = self._kafka.KafkaError
        message = f"{error.name()}: {error.str()}"
        if error.code() in (codes.MSG_SIZE_TOO_LARGE, codes.INVALID_MSG, codes.INVALID_RECORD):
            return Outcome(Verdict.REFUSED, error.name().strip("_").lower(), message)
        return Outcome(Verdict.RETRY, error.name().strip("_").lower(), message, is_sick=True)

    def close(self) -> None:
        """Close the connections."""
        if self._producer is not None:
            self._producer.flush(1)
            self._producer = None


def _logger() -> Any:
    """Return the logger for librdkafka, which would otherwise write to the standard error output."""
    import logging

    return logging.getLogger("rules_engine.kafka")
