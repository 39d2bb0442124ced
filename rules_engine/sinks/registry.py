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
    found: dict[str, type[SinkSettings]] = {}
    for module in sorted(one.name for one in pkgutil.iter_modules(kinds.__path__)):
        found[module] = _own(module)
    for entry, sink in _BROUGHT.load([*found, STREAM]):
        if not (isinstance(sink, type) and issubclass(sink, Sink) and sink.__dict__.get("kind") == entry.name):
            raise _BROUGHT.unusable(entry, f"`{entry.value}` is no sink of the kind `{entry.name}`")
        found[entry.name] = sink.settings_class
    return found


def _own(module: str) -> type[SinkSettings]:
    content = vars(import_module(f"{kinds.__name__}.{module}")).values()
    sinks = [one for one in content if isinstance(one, type) and issubclass(one, Sink) and one is not Sink]
    if [one.kind for one in sinks] != [module]:
        raise TypeError(f"{kinds.__name__}.{module} has to hold one sink, of the kind `{module}`")
    return sinks[0].settings_class
