"""Where actions go: one module for each kind of sink. What each needs is imported when the first one is opened."""

from __future__ import annotations

from pathlib import Path

from rules_engine.delivery.sinks.base import Sink
from rules_engine.rules.triggers.nodes import FileSettings, KafkaSettings, SinkSettings


def open_sink(settings: SinkSettings, root: Path) -> Sink:
    """A sink, with the ``${VARIABLES}`` of its settings put in.

    Raises
    ------
    ProjectError
        if a variable is not set, or the settings name nothing that can be used.
    MissingExtraError
        if a package that it needs is not installed.
    """
    if isinstance(settings, FileSettings):
        from rules_engine.delivery.sinks.file import FileSink

        return FileSink(settings, root)
    if isinstance(settings, KafkaSettings):
        from rules_engine.delivery.sinks.kafka import KafkaSink

        return KafkaSink(settings)
    from rules_engine.delivery.sinks.webhook import WebhookSink

    return WebhookSink(settings)
