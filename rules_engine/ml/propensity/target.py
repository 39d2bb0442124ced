"""Find when users did what a model predicts: rows of a feature view's source, or events of the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rules_engine.clock import DAY, from_micros
from rules_engine.errors import ProjectError, pass_interrupt
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.ml.propensity.check import event_match
from rules_engine.ml.propensity.definition import Target
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventMatch
from rules_engine.stream.event_sink import event_log

_NOTHING = pa.schema([("user", pa.large_string()), ("at", pa.int64())])


@dataclass(frozen=True, eq=False, slots=True)
class Occurrences:
    """Holds who did it, and when.

    Attributes
    ----------
    users
        the keys of the users.
    owner, at
        for each time that it was done, the number of the user, and the instant in microseconds.
    """

    users: pd.Index[Any]
    owner: NDArray[np.int64]
    at: NDArray[np.int64]

    def did(self, users: NDArray[Any], start: int, end: int) -> NDArray[np.bool_]:
        """Return for each of some users whether they did it in (start, end].

        >>> did = Occurrences(pd.Index(["a", "b"]), np.array([0, 1]), np.array([5, 9]))
        >>> did.did(np.array(["a", "b", "c"]), start=5, end=9).tolist()
        [False, True, False]
        """
        inside = (self.at > start) & (self.at <= end)
        did = np.zeros(len(self.users) + 1, dtype=np.bool_)  # the last one is for users who never did it
        did[self.owner[inside]] = True
        return did[self.users.get_indexer(pd.Index(users))]


def occurrences(repo: FeastRepo, target: Target, catalog: Catalog, start: int, end: int) -> Occurrences:
    """Return everything in (start, end] that a target counts.

    Raises
    ------
    ProjectError
        if the offline store, or the event log, cannot be read.
    DefinitionError
        if the event is not declared any more as the target has it.
    """
    table = _events(repo, target, catalog, start, end) if target.did else _rows(repo, target.new_row, start, end)
    owner, users = pd.factorize(table["user"].to_pandas())
    return Occurrences(pd.Index(users), owner.astype(np.int64), table["at"].to_numpy())


def _rows(repo: FeastRepo, view_name: str, start: int, end: int) -> pa.Table:
    """Return the rows of a view's source; Feast reads them, whatever kind of source that is."""
    views = {str(view.name): view for view in [*repo.contents.feature_views, *repo.contents.stream_feature_views]}
    view = views[view_name]  # the definition was checked
    source, key = view.batch_source, repo.entity().join_key
    stored = {new: old for old, new in (source.field_mapping or {}).items()}
    column, instant = stored.get(key, key), stored.get(source.timestamp_field, source.timestamp_field)
    store = repo.store.provider.offline_store
    try:
        with quiet():
            table = store.pull_all_from_table_or_query(
                config=repo.store.config,
                data_source=source,
                join_key_columns=[column],
                feature_name_columns=[],
                timestamp_field=instant,
                start_date=from_micros(start),
                end_date=from_micros(end) + timedelta(seconds=1),  # engines differ in what they do with an end
            ).to_arrow()
    except Exception as error:  # every engine raises its own
        pass_interrupt(error)
        raise ProjectError(
            f"the rows of `{view_name}` cannot be read: {error}",
            hint=f"does its source in {repo.project.feature_repo} exist?",
        ) from error
    at = table[instant].cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
    rows = pa.table({"user": table[column].cast(pa.large_string()), "at": at})
    return rows.filter(pc.and_(pc.greater(at, start), pc.less_equal(at, end)))


def _events(repo: FeastRepo, target: Target, catalog: Catalog, start: int, end: int) -> pa.Table:
    match = event_match(target.to_plain(), catalog).match
    log = event_log(repo.project)
    joins = log.joins()
    tables = [_NOTHING.empty_table()]
    for day in log.days():
        if day * DAY > end or (day + 1) * DAY <= start:
            continue
        owned = (joins.attributed(user, event, end) for user, event in log.read(day, [match.event]))
        events = [(user, event) for user, event in owned if _counts(event, match, start, end)]
        columns = [[user for user, _ in events], [event.at for _, event in events]]
        tables.append(pa.table([pa.array(*pair) for pair in zip(columns, _NOTHING.types, strict=True)], _NOTHING))
    return pa.concat_tables(tables)


def _counts(event: Event, match: EventMatch, start: int, end: int) -> bool:
    return start < event.at <= end and event.is_meant_by(match)
