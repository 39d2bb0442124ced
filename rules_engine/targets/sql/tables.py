"""The two tables that the generated SQL reads, and how values are stored in them.

The table of features (``features``) has one row per entity to be judged, with what was known of it at the instant:

=============================  ======================================================================================
``entity``                     the entity's key, a string
``view:name``                  a column per feature; NULL and NaN are missing
``view:__updated_at``          per view with a ttl: when the row was observed; past its ttl its values are missing
=============================  ======================================================================================

The table of events (``events``) has one row per delivery:

=============================  ======================================================================================
``entity``                     whose event it is
``event``                      its name
``at``                         when it happened
``event_id``                   its id; several rows of one entity with one id are one event, the first stored counts
``seq``                        the order in which rows were stored, a number
``event:property``             a column per event and property, of the declared type
=============================  ======================================================================================

Names are written in quotes, exactly so. Booleans are BOOLEAN, integers BIGINT, floats DOUBLE (or REAL, which is
widened), strings VARCHAR, lists arrays of these. **Every instant is a BIGINT, microseconds since the epoch, UTC**:
the one form that no engine, session or driver shifts by a time zone. With ``timestamps=True`` instants are TIMESTAMP
columns in UTC instead (with or without a zone; in Spark those with one) and are converted where they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from rules_engine.rules.catalog import Catalog
from rules_engine.rules.types import ValueType

ENTITY = "entity"
EVENT = "event"
AT = "at"
EVENT_ID = "event_id"
SEQUENCE_NUMBER = "seq"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``type`` None is a flag: TRUE where there is a value of no type that rules compare."""

    name: str
    type: ValueType | None


@dataclass(frozen=True)
class Tables:
    """Says which columns hold what.

    A key is usually one column. Where nothing declares a type (in tests), values of several types are kept in several
    columns, of which at most one is not NULL per row (a list of integers and floats fills two).

    Attributes
    ----------
    features, events
        the names of the tables, as they are written in SQL.
    feature_columns
        by feature key.
    property_columns
        by event name and property name.
    context_columns
        by name, for context values that differ by entity; they are read from the table of features.
    updated_at
        by view, the column that tells when its row was observed.
    ttl
        by view, in microseconds.
    unit
        the column of keys in the table of features by which samples are drawn.
    timestamps
        instants are TIMESTAMP columns rather than BIGINT.
    unique_events
        the table of events has no redeliveries, so that nothing needs to look for them (nor read ``event_id`` and
        ``seq`` for it).
    """

    features: str = "features"
    events: str = "events"
    feature_columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    property_columns: Mapping[tuple[str, str], tuple[Column, ...]] = field(default_factory=dict)
    context_columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    updated_at: Mapping[str, str] = field(default_factory=dict)
    ttl: Mapping[str, int] = field(default_factory=dict)
    unit: str = ENTITY
    timestamps: bool = False
    unique_events: bool = False


def updated_at_column(view: str) -> str:
    """Return the column that tells when a view's row was observed.

    >>> updated_at_column("user")
    'user:__updated_at'
    """
    return f"{view}:__updated_at"


def tables_of(
    catalog: Catalog,
    *,
    features: str = "features",
    events: str = "events",
    timestamps: bool = False,
    unique_events: bool = False,
    updated_at: Collection[str] | None = None,
) -> Tables:
    """Return the tables that a catalog describes, one column per feature and per event property.

    Parameters
    ----------
    updated_at
        the views whose table has a ``view:__updated_at`` column; by default those with a ttl. Pass ``()`` if whoever
        fills the table has already left out what is past its ttl, as a point-in-time join does.

    >>> from rules_engine.rules.catalog import Feature
    >>> from rules_engine.rules.types import INTEGER
    >>> tables_of(Catalog({"user:age": Feature("user", "age", INTEGER, "Int64")})).feature_columns["user:age"][0].name
    'user:age'
    """
    views = set(catalog.ttl if updated_at is None else updated_at)
    return Tables(
        features=features,
        events=events,
        feature_columns={
            key: (Column(key, feature.type),) for key, feature in catalog.features.items() if feature.type is not None
        },
        property_columns={
            (event.name, name): (Column(f"{event.name}:{name}", value_type),)
            for event in catalog.events.values()
            for name, value_type in event.properties.items()
        },
        updated_at={view: updated_at_column(view) for view in views},
        ttl={view: ttl for view, ttl in catalog.ttl.items() if view in views},
        timestamps=timestamps,
        unique_events=unique_events,
    )
