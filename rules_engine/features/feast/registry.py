"""Compare the definitions of a Feast repository with its registry, without what Feast adds to them by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: The definitions whose changes are reported.
LISTED_KINDS = ("feature_views", "stream_feature_views", "on_demand_feature_views", "label_views", "feature_services")

#: What each definition says, by its class and name.
Specs = Mapping[tuple[str, str], Any]


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """Lists the names that applying the definitions changed in Feast's registry, by what happened to them."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)

    @classmethod
    def between(cls, before: Specs, after: Specs) -> RegistryChange:
        """Compare what the registry says with what the definitions say."""
        return cls(
            added=_names(after.keys() - before.keys()),
            updated=_names(key for key in after.keys() & before.keys() if after[key] != before[key]),
            removed=_names(before.keys() - after.keys()),
        )


def _names(keys: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(name for _, name in keys))


def registry_specs(registry: Any, project: str) -> Specs:
    """Return what the registry says of a project's views and services, read anew."""
    registry.refresh(project)
    return _specs([*registry.list_all_feature_views(project), *registry.list_feature_services(project)], project)


def defined_specs(contents: Any, project: str) -> Specs:
    """Return what the definitions in the files say; ``contents`` is Feast's ``RepoContents``."""
    return _specs((definition for kind in LISTED_KINDS for definition in getattr(contents, kind)), project)


def _specs(definitions: Iterable[Any], project: str) -> Specs:
    """Return what each definition says, without what Feast adds to it (versions, states, intervals)."""
    specs = {}
    for definition in definitions:
        spec = definition.to_proto().spec
        spec.project = project
        _drop_meta(spec)
        specs[type(definition).__name__, str(definition.name)] = spec
    return specs


def source_text(view: Any) -> str:
    """Write down where a view's rows come from."""
    source = view.batch_source.to_proto()
    _drop_meta(source)
    return str(source.SerializeToString(deterministic=True))


def _drop_meta(message: Any) -> None:
    """Remove Feast's notes on when a definition was written down, at every depth of its message."""
    for field, value in message.ListFields():
        if field.name == "meta":
            message.ClearField("meta")
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _drop_meta(inner)
