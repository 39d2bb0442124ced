"""The read plan: all that a request needs to know, written by ``segments apply`` and loaded in milliseconds.

It names the keys, fields and types of the online store as Feast lays them out, and carries the checked definitions.
So the request path imports no Feast and looks into no registry. The plan is one JSON file, written in one step: a
reader finds the old plan or the new one, never half of one.

About secrets: the connection is kept as ``feature_store.yaml`` spells it, with its ``${VARIABLES}`` unexpanded, and
is expanded when a connection is opened. So a password that came from the environment is never written to the plan.
A password spelt out in ``feature_store.yaml`` is in the plan too; both files are as readable as their permissions say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rules_engine.errors import NotAppliedError, ProjectError
from rules_engine.files import is_sealed, seal, write_atomically
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.types import from_feast_name

#: Raised by one whenever an older version of this package could misread the file.
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Connection:
    """Describe how the online store is reached.

    Attributes
    ----------
    kind
        ``embedded`` (the project's own server), ``redis`` (Feast's Redis store, read directly), or ``feast`` (any
        other store, read through Feast).
    connection_string
        Feast's ``host:port,key=value``, with environment variables unexpanded. Empty unless the kind is ``redis``.
    redis_type
        ``redis``, ``redis_cluster`` or ``redis_sentinel``.
    sentinel_master
        the master's name, for ``redis_sentinel``.
    store
        Feast's name of the store, for messages.
    """

    kind: str
    connection_string: str = ""
    redis_type: str = "redis"
    sentinel_master: str = "mymaster"
    store: str = ""


@dataclass(frozen=True, slots=True)
class PlanFeature:
    """A feature: its name in its view, Feast's name of its type, and the hash field that holds it (as a number)."""

    name: str
    type: str
    field: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class PlanView:
    """A feature view. ``stored_name`` carries Feast's version suffix, if there is one; ``ttl`` is in microseconds."""

    name: str
    stored_name: str
    features: tuple[PlanFeature, ...]
    ttl: int | None = None

    @property
    def timestamp_field(self) -> bytes:
        """Return the hash field that holds the row's event timestamp."""
        return f"_ts:{self.stored_name}".encode()


@dataclass(frozen=True)
class ReadPlan:
    """Everything that the request path loads.

    Attributes
    ----------
    project
        Feast's project name; it ends every key in the store.
    entity, join_key
        who the features are about, and the column that identifies them.
    key_version
        Feast's ``entity_key_serialization_version``.
    connection
        how the store is reached.
    views
        the feature views of the entity that are served online.
    definitions
        the checked definitions, in a form that this module does not look into.
    applied_at
        when the plan was written, in microseconds.
    now
        the instant that counts as now where none is given, in microseconds; None is the wall clock.

    Examples
    --------
    >>> feature = PlanFeature("age", "Int64", field=7)
    >>> view = PlanView("profile", "profile", (feature,))
    >>> plan = ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (view,))
    >>> ReadPlan.from_json(plan.to_json()) == plan
    True
    >>> list(plan.catalog().features)
    ['profile:age']
    """

    project: str
    entity: str
    join_key: str
    key_version: int
    connection: Connection
    views: tuple[PlanView, ...]
    definitions: Mapping[str, Any] = field(default_factory=dict)
    applied_at: int = 0
    now: int | None = None

    @cached_property
    def definitions_version(self) -> str:
        """Return a hash of the definitions: equal definitions have equal versions, on every machine."""
        import hashlib  # requests do not need it

        text = json.dumps(self.definitions, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def catalog(self) -> Catalog:
        """Return the names and types that rules may mention, as they were when the plan was written."""
        features = (
            Feature(view.name, feature.name, from_feast_name(feature.type), feature.type, feature.description)
            for view in self.views
            for feature in view.features
        )
        ttl = {view.name: view.ttl for view in self.views if view.ttl is not None}
        return Catalog({feature.key: feature for feature in features}, ttl)

    def to_json(self) -> bytes:
        """Return the plan as UTF-8 JSON."""
        content = {"format": FORMAT, "definitions_version": self.definitions_version} | {
            name: asdict(value) if name == "connection" else value
            for name, value in vars(self).items()
            if name != "definitions_version"
        }
        content["views"] = [asdict(view) for view in self.views]
        # Not orjson: it has no whole numbers beyond 64 bits, and a rule may have.
        return json.dumps(content, sort_keys=True, indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes, source: str = "the read plan") -> ReadPlan:
        """Return the plan from its JSON.

        Raises
        ------
        ProjectError
            if the text is no plan, or one that a newer version of this package wrote.
        """
        hint = "write it anew with `segments apply`"
        try:
            content = json.loads(text)
            written = content["format"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ProjectError(f"{source} is no read plan: {_what(error)}", hint=hint) from error
        if written != FORMAT:
            raise ProjectError(
                f"{source} has format {written}, and this version of feast-segments reads format {FORMAT}",
                hint=f"use the version that wrote it, or {hint}",
            )
        try:
            return cls(
                project=_string(content, "project"),
                entity=_string(content, "entity"),
                join_key=_string(content, "join_key"),
                key_version=_integer(content, "key_version"),
                connection=Connection(**content["connection"]),
                views=tuple(_view(view) for view in content["views"]),
                definitions=content["definitions"],
                applied_at=_integer(content, "applied_at"),
                now=None if content["now"] is None else _integer(content, "now"),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ProjectError(f"{source} is damaged: {_what(error)}", hint=hint) from error

    def save(self, path: Path) -> None:
        """Write the plan in one step, with a checksum, readable by those whom the umask or the old file lets read.

        Raises
        ------
        ProjectError
            if the file cannot be written.
        """
        write_atomically(path, seal(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> ReadPlan:
        """Read the plan of a project.

        Raises
        ------
        NotAppliedError
            if there is none yet.
        ProjectError
            if it cannot be read, or is not what was written.
        """
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise NotAppliedError(f"nothing was applied yet: there is no {path}", hint="run `segments apply`") from None
        except OSError as error:
            raise ProjectError(
                f"cannot read {path}: {error.strerror}", hint="may this user read it? `segments apply` writes it"
            ) from error
        if not is_sealed(text):
            cls.from_json(text, str(path))  # says more where there is more to say
            raise ProjectError(
                f"{path} has no checksum that fits its content: it is damaged, or an older version wrote it",
                hint="write it anew with `segments apply`",
            )
        return cls.from_json(text, str(path))


def _view(content: Mapping[str, Any]) -> PlanView:
    features: Sequence[Mapping[str, Any]] = content["features"]
    return PlanView(
        _string(content, "name"),
        _string(content, "stored_name"),
        tuple(PlanFeature(**feature) for feature in features),
        None if content["ttl"] is None else _integer(content, "ttl"),
    )


def _string(content: Mapping[str, Any], name: str) -> str:
    if not isinstance(content[name], str):
        raise TypeError(f"`{name}` is not a string")
    value: str = content[name]
    return value


def _integer(content: Mapping[str, Any], name: str) -> int:
    if not isinstance(content[name], int):
        raise TypeError(f"`{name}` is not a whole number")
    value: int = content[name]
    return value


def _what(error: Exception) -> str:
    return f"it has no `{error.args[0]}`" if isinstance(error, KeyError) else str(error)
