"""The source of events in Kafka: brokers, topic, group, and options of librdkafka."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rules_engine.errors import ProjectError

#: Options of librdkafka that the bridge sets itself.
OWN_OPTIONS = frozenset({"bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store"})


@dataclass(frozen=True, slots=True)
class KafkaSource:
    """A topic of Kafka, and how it is read.

    Attributes
    ----------
    brokers
        ``host:port``, several separated by commas.
    group
        the consumer group; ``feast-segments-PROJECT`` if it is empty. Several bridges of one group share the topic.
    options
        of librdkafka. Values, and the brokers, may hold ``${VARIABLES}`` of the environment.
    """

    brokers: str
    topic: str
    group: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def kafka_options(texts: Iterable[str]) -> dict[str, str]:
    """Parse options as a command line gives them.

    Raises
    ------
    ProjectError
        if one is not ``name=value``.

    >>> kafka_options(["security.protocol=SASL_SSL"])
    {'security.protocol': 'SASL_SSL'}
    """
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ProjectError(f"`{text}` is no option of librdkafka", hint="write NAME=VALUE")
        options[name] = value
    return options
