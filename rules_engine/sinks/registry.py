"""Finds the kinds of sinks: the modules of ``kinds/``, and the entry points that other packages bring."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from rules_engine.extensions import Extensions
from rules_engine.sinks import kinds
from rules_engine.sinks.base import STREAM, Sink
from rules_engine.sinks.settings import SinkSettings

#: The group of the entry points: the name is the kind, the object a subclass of Sink.
GROUP = "feast_segments.sinks"

_BROUGHT = Extensions(GROUP, "sink", "docs/sinks.md")


@cache
def sink_kinds() -> Mapping[str, type[SinkSettings]]:
    """Return the settings class of every kind of sink but ``stream``, by kind: ours first.

    Raises
    ------
    ProjectError
        if a package brings a sink that cannot be imported, is incomplete, or has a name that is taken.

    >>> list(sink_kinds())[:3]
    ['file', 'kafka', 'webhook']
    """
    settings_by_kind: dict[str, type[SinkSettings]] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(kinds.__path__)):
        settings_by_kind[module] = _own(module)
    for entry, sink in _BROUGHT.load([*settings_by_kind, STREAM]):
        if not (isinstance(sink, type) and issubclass(sink, Sink) and sink.__dict__.get("kind") == entry.name):
            raise _BROUGHT.unusable(entry, f"`{entry.value}` is no sink of the kind `{entry.name}`")
        settings_by_kind[entry.name] = sink.settings_class
    return settings_by_kind


def _own(module: str) -> type[SinkSettings]:
    content = vars(import_module(f"{kinds.__name__}.{module}")).values()
    sinks = [value for value in content if isinstance(value, type) and issubclass(value, Sink) and value is not Sink]
    if [value.kind for value in sinks] != [module]:
        raise TypeError(f"{kinds.__name__}.{module} has to hold one sink, of the kind `{module}`")
    return sinks[0].settings_class
