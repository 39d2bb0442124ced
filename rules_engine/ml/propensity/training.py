"""Training sets, point in time: features as of each cut, and whether the user did it after the cut.

A row is a user at a cut. Its features come from rows of the offline store at or before the cut; its label from what
happened in (cut, cut + horizon]. So what a user does after a cut changes no feature of a row at that cut, and what
comes after the horizon changes nothing of it at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rules_engine.batch.engine import BatchRules
from rules_engine.clock import format_instant
from rules_engine.errors import DataError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.point_in_time import OfflineUsers
from rules_engine.ml.propensity.batch import Values, anything, values_of
from rules_engine.ml.propensity.definition import ModelDefinition
from rules_engine.ml.propensity.target import Occurrences
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.program import Program
from rules_engine.rules.types import ValueType

#: Users are drawn by a hash of their key: the same ones at every cut, in every order.
_HASHES = 2**32


@dataclass(frozen=True, eq=False, slots=True)
class TrainingRows:
    """Users at cuts.

    Attributes
    ----------
    users
        the users' keys.
    cuts
        for each row, the cut in microseconds.
    values
        by feature, a value for each row.
    did
        for each row, whether the user did it within the horizon.
    share
        the share of the users that was taken; 1 unless there were too many rows.
    """

    users: NDArray[Any]
    cuts: NDArray[np.int64]
    values: Values
    did: NDArray[np.bool_]
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.users)

    def take(self, which: NDArray[Any]) -> TrainingRows:
        """Return some of the rows."""
        values = {name: column[which] for name, column in self.values.items()}
        return TrainingRows(self.users[which], self.cuts[which], values, self.did[which], self.share)

    def labels_digest(self) -> str:
        """Return what tells who is in these rows, at which cuts, and who did it, from all others."""
        return f"sha256:{self._labels().hexdigest()}"

    def _labels(self) -> Any:
        digest = hashlib.sha256("\n".join(map(str, self.users)).encode())
        digest.update(np.ascontiguousarray(self.cuts).tobytes() + np.packbits(self.did).tobytes())
        return digest

    def digest(self) -> str:
        """Return what tells these rows, with their features, from all others."""
        digest = self._labels()
        for name in sorted(self.values):
            column = self.values[name]
            text = "\n".join(map(repr, column)).encode() if column.dtype == object else column.tobytes()
            digest.update(name.encode() + text)
        return f"sha256:{digest.hexdigest()}"


class Population:
    """Whom a model is for, with their features, as of any instant; everyone, or the users in a segment.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    catalog
        its features.
    features
        what is read.
    segment, program
        the segment's name, empty for everyone, and the program that defines it.
    """

    def __init__(
        self,
        repo: FeastRepo,
        catalog: Catalog,
        features: Sequence[str],
        segment: str = "",
        program: Program | None = None,
    ) -> None:
        self.types: dict[str, ValueType] = {}
        for name in features:
            value_type = catalog.features[name].type
            assert value_type is not None  # the definition was checked
            self.types[name] = value_type
        self._users = OfflineUsers(repo, sorted(features))
        self._segment = segment
        self._rules = BatchRules(repo, program, [segment]) if segment and program else None

    @property
    def key(self) -> str:
        """Return the name of the users' column: Feast's join key."""
        return self._users.key

    def batches(self, as_of: int) -> Iterator[Batch]:
        """Yield everyone of them, a bounded number at a time."""
        members = None if self._rules is None else self._members(self._rules, as_of)
        for part in self._users.batches(as_of):
            keys = part.batch.column(self.key).cast(pa.large_string())
            batch = part.batch
            if members is not None:
                inside = pc.is_in(keys, value_set=members)
                batch, keys = batch.filter(inside), keys.filter(inside)
            values = values_of(batch, self.types, self._users.ttl, as_of)
            yield Batch(np.array(keys.to_pylist(), dtype=object), values, part.done)

    def _members(self, rules: BatchRules, as_of: int) -> pa.Array:
        chunks = [pa.array([], pa.large_string())]
        for answered in rules.answers(as_of):
            members = pa.array(answered.members(self._segment))
            chunks.append(answered.entities.cast(pa.large_string()).filter(members))
        return pa.concat_arrays(chunks)


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Some users with their values; ``done`` says how far the reading is, from 0 to 1."""

    users: NDArray[Any]
    values: Values
    done: float


def training_rows(
    population: Population,
    definition: ModelDefinition,
    cuts: Sequence[int],
    did: Occurrences,
    max_rows: int,
    report: Callable[[str], None] = lambda _text: None,
) -> TrainingRows:
    """Return the rows of some cuts, by cut and user. Of more than ``max_rows`` a share of the users is taken, by hash.

    Raises
    ------
    DataError
        if nobody has any of the features at any of the cuts.
    """
    parts: list[TrainingRows] = []
    limit, total = _HASHES, 0
    for cut in cuts:
        report(f"Reading features as of {format_instant(cut)}")
        for batch in population.batches(cut):
            users, values = batch.users, batch.values
            chosen = anything(values, definition.keys) & (hashes(users) < limit)
            labels = did.did(users, cut, cut + definition.target.within)
            part = TrainingRows(users, np.full(len(users), cut, dtype=np.int64), values, labels).take(chosen)
            parts.append(part)
            total += len(part)
            while total > max_rows:
                limit //= 2
                parts = [each.take(hashes(each.users) < limit) for each in parts]
                total = sum(map(len, parts))
    if not total:
        raise DataError(
            f"nobody has any of the features of `{definition.name}` at any cut from {format_instant(cuts[0])} to "
            f"{format_instant(cuts[-1])}",
            hint="is the offline data built for these instants? see `cuts` in models.yaml",
        )
    return _joined(parts, limit / _HASHES)


def hashes(users: NDArray[Any]) -> NDArray[np.int64]:
    """Return a number below 2**32 for each key, the same everywhere."""
    numbers: NDArray[np.int64] = (pd.util.hash_array(users, categorize=False) >> np.uint64(32)).astype(np.int64)
    return numbers


def _joined(parts: Sequence[TrainingRows], share: float) -> TrainingRows:
    users = np.concatenate([part.users for part in parts])
    cuts = np.concatenate([part.cuts for part in parts])
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    whole = TrainingRows(users, cuts, values, np.concatenate([part.did for part in parts]), share)
    return whole.take(np.lexsort((users.astype(str), cuts)))
