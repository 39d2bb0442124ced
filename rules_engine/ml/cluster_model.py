"""A fitted clustering as data: plain numbers with everything needed to assign a user, and no code.

It is stored as JSON under a version of its own. A model file can therefore be read, compared and trusted to do nothing
when loaded; its checksum tells a damaged or edited file from a whole one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from rules_engine.diagnostics import listing
from rules_engine.errors import DataError, ProjectError, UnknownNameError
from rules_engine.features.read_plan import write_atomically
from rules_engine.ml.definition import DEFAULT_MAX_MOVED, ClusterDefinition
from rules_engine.ml.matching import Matching
from rules_engine.project import Project

Matrix = NDArray[np.float64]

#: Raised by one whenever an older version of this package could misread the file.
FORMAT = 1

_ATTACHED = "attached"
_VERSION_FILE = re.compile(r"v([1-9][0-9]{0,8})\.json\Z")


@dataclass(frozen=True, slots=True)
class Scaler:
    """How one feature becomes comparable with the others: log(1 + x) if ``log``, minus ``mean``, by ``deviation``."""

    feature: str
    log: bool
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """One group.

    Attributes
    ----------
    number
        what the cluster keeps through all versions. In the first one, 1 has the highest mean of ``order_by``.
    label
        its name.
    size
        how many of the users that were fitted are in it.
    centroid
        its centre, in standardized units, in the order of the features.
    profile
        by feature, the mean of its users in the feature's own unit.
    """

    number: int
    label: str
    size: int
    centroid: tuple[float, ...]
    profile: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class KScore:
    """How well one number of clusters fits. The silhouette lies between -1 and 1, higher is better."""

    k: int
    silhouette: float
    inertia: float


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """A fitted clustering.

    Attributes
    ----------
    definition
        what it was fitted by.
    as_of
        the instant, in microseconds, up to which data was read.
    users, left_out
        how many users were fitted, and how many could not be because a feature of theirs is missing.
    data
        a digest of the values that were fitted.
    scalers, clusters
        in the order of the features, and by number.
    scores
        for each number of clusters that was tried.
    libraries
        the versions it was fitted with.
    version
        ``v1``, ``v2``, ...; empty until the model is stored.
    created_at
        when it was stored, in microseconds.
    matching
        what became of the clusters of the version before; None for a first version.
    last_number
        the highest number that a cluster had up to this version.
    checksum
        of the file it was read from; empty for a model that was not stored.
    """

    definition: ClusterDefinition
    as_of: int
    users: int
    left_out: int
    data: str
    scalers: tuple[Scaler, ...]
    clusters: tuple[Cluster, ...]
    scores: tuple[KScore, ...]
    libraries: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    created_at: int = 0
    matching: Matching | None = None
    last_number: int = 0
    checksum: str = field(default="", compare=False)

    @property
    def features(self) -> tuple[str, ...]:
        return self.definition.keys

    @property
    def labels(self) -> tuple[str, ...]:
        """The clusters' names, by number."""
        return tuple(cluster.label for cluster in self.clusters)

    @property
    def score(self) -> KScore:
        """The score of the number of clusters that was chosen."""
        return next(score for score in self.scores if score.k == len(self.clusters))

    def is_same_fit(self, other: ClusterModel) -> bool:
        """Whether both are what the same definition finds in the same data, whatever their clusters are called."""
        return self._fit() == other._fit()

    def _fit(self) -> tuple[Any, ...]:
        definition = replace(self.definition, max_moved=DEFAULT_MAX_MOVED)
        centroids = sorted(cluster.centroid for cluster in self.clusters)
        return (definition, self.as_of, self.left_out, self.data, self.scalers, self.scores, centroids, self.libraries)

    def standardize(self, values: Matrix) -> Matrix:
        """Users' values, one row each, in the units of the centroids.

        Raises
        ------
        DataError
            if a value whose logarithm is taken is -1 or less.
        """
        result = np.array(values, dtype=np.float64)
        for column, scaler in enumerate(self.scalers):
            if scaler.log:
                result[:, column] = log1p(scaler.feature, result[:, column])
            result[:, column] = (result[:, column] - scaler.mean) / scaler.deviation
        return result

    def assign(self, values: Matrix) -> tuple[NDArray[np.int64], Matrix]:
        """For each row of values, the position of the nearest cluster and the distance to its centre.

        No fitting takes place: a user who came after the fit gets the cluster whose centre is nearest.
        """
        standardized = self.standardize(values)
        centroids = np.array([cluster.centroid for cluster in self.clusters])
        distances = np.empty((len(standardized), len(centroids)))
        for position, centroid in enumerate(centroids):
            distances[:, position] = np.sqrt(((standardized - centroid) ** 2).sum(axis=1))
        nearest = distances.argmin(axis=1)
        return nearest.astype(np.int64), distances[np.arange(len(nearest)), nearest]

    # --- JSON --------------------------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """The model as plain data, without its version and checksum."""
        return {
            "format": FORMAT,
            "definition": self.definition.to_plain(),
            "as_of": self.as_of,
            "users": self.users,
            "left_out": self.left_out,
            "data": self.data,
            "scalers": [_fields(scaler) for scaler in self.scalers],
            "clusters": [_fields(cluster) for cluster in self.clusters],
            "scores": [_fields(score) for score in self.scores],
            "libraries": dict(self.libraries),
            "matching": self.matching.to_plain() if self.matching else None,
            "last_number": self.last_number,
        }

    def to_json(self) -> bytes:
        """The model as UTF-8 JSON, with a checksum over all of it."""
        content = {**self.content(), "version": self.version, "created_at": self.created_at}
        content["checksum"] = _checksum(content)
        return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_json(cls, text: bytes, source: str = "the model") -> ClusterModel:
        """The model from its JSON.

        Raises
        ------
        DataError
            if the text is no model, was changed after it was written, or a newer version of this package wrote it.
        """
        hint = "fit anew with `segments cluster fit`"
        try:
            content = orjson.loads(text)
            checksum, written = content.pop("checksum"), content["format"]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise DataError(f"{source} is no cluster model: {error}", hint=hint) from error
        if written != FORMAT:
            raise DataError(f"{source} has format {written}, and this version reads format {FORMAT}", hint=hint)
        if checksum != _checksum(content):
            raise DataError(f"{source} was changed after it was written: its checksum does not fit", hint=hint)
        try:
            return replace(_model(content), checksum=checksum)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{source} is damaged: {error}", hint=hint) from error


def log1p(feature: str, column: Matrix) -> Matrix:
    """log(1 + x), refused where it does not exist.

    Raises
    ------
    DataError
        if a value is -1 or less.
    """
    if (column <= -1).any():
        raise DataError(
            f"`{feature}` has the value {column.min():g}, whose logarithm log(1 + x) does not exist",
            hint=f"write `scale: standard` for {feature} in clusters.yaml",
        )
    result: Matrix = np.log1p(column)
    return result


def _fields(record: Any) -> dict[str, Any]:
    """A record as plain data."""
    return {name: getattr(record, name) for name in record.__slots__}


def _checksum(content: Mapping[str, Any]) -> str:
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return "sha256:" + hashlib.sha256(canonical).hexdigest()


def _model(content: dict[str, Any]) -> ClusterModel:
    definition = ClusterDefinition.from_plain(content["definition"])
    scalers = tuple(Scaler(**scaler) for scaler in content["scalers"])
    clusters = tuple(
        Cluster(**{**cluster, "centroid": tuple(map(float, cluster["centroid"]))}) for cluster in content["clusters"]
    )
    numbers = [number for cluster in clusters for number in cluster.centroid]
    numbers += [number for scaler in scalers for number in (scaler.mean, scaler.deviation)]
    if not clusters or not all(map(math.isfinite, numbers)) or not all(scaler.deviation > 0 for scaler in scalers):
        raise ValueError("its numbers make no sense")
    if {len(cluster.centroid) for cluster in clusters} != {len(scalers)} or len(scalers) != len(definition.features):
        raise ValueError("its clusters and features do not fit together")
    rest = {key: content[key] for key in ("as_of", "users", "left_out", "data", "libraries", "version", "created_at")}
    scores = tuple(KScore(**score) for score in content["scores"])
    # Files of earlier versions of this package lack these two.
    matching = Matching.from_plain(content["matching"]) if content.get("matching") else None
    last_number = content.get("last_number") or max(cluster.number for cluster in clusters)
    return ClusterModel(
        definition=definition,
        scalers=scalers,
        clusters=clusters,
        scores=scores,
        matching=matching,
        last_number=last_number,
        **rest,
    )


class ModelFolder:
    """The stored versions of one project's models of one name: ``.segments/models/NAME/v1.json``, ...

    A version never changes once it is written.
    """

    def __init__(self, project: Project, name: str) -> None:
        self.name = name
        self.path = project.state_dir / "models" / name

    def versions(self) -> tuple[str, ...]:
        """Every stored version, oldest first."""
        found = (_VERSION_FILE.match(path.name) for path in self.path.glob("v*.json"))
        return tuple(f"v{number}" for number in sorted(int(match[1]) for match in found if match))

    def file(self, version: str) -> Path:
        """Where a version lies."""
        return self.path / f"{version}.json"

    def load(self, version: str | None = None) -> ClusterModel:
        """A version, by default the newest.

        Raises
        ------
        UnknownNameError
            if there is no such version, or none at all.
        DataError
            if the file cannot be used.
        """
        known = self.versions()
        if not known:
            raise UnknownNameError(f"no model of `{self.name}` was fitted yet", hint="run `segments cluster fit`")
        wanted = known[-1] if version is None else version
        if wanted not in known:
            raise UnknownNameError(f"`{self.name}` has no version `{wanted}`", hint=f"there is {listing(known)}")
        path = self.file(wanted)
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ProjectError(f"cannot read {path}: {error.strerror}") from error
        return ClusterModel.from_json(text, str(path))

    def save(self, model: ClusterModel, created_at: int) -> tuple[ClusterModel, bool]:
        """Store a model as the next version, unless the newest one is the same.

        Returns
        -------
        The stored model, and whether it is new.
        """
        same = self.same_fit(model)
        if same is not None:
            return same, False
        known = self.versions()
        version = f"v{int(known[-1][1:]) + 1 if known else 1}"
        text = replace(model, version=version, created_at=created_at).to_json()
        write_atomically(self.file(version), text)
        return ClusterModel.from_json(text), True

    def same_fit(self, model: ClusterModel) -> ClusterModel | None:
        """The newest version, if it is the same fit."""
        newest = self.load() if self.versions() else None
        return newest if newest is not None and newest.is_same_fit(model) else None

    # --- which one counts ---------------------------------------------------------------------------------------------

    def mark_attached(self, version: str) -> None:
        """Remember the version whose labels the users have."""
        write_atomically(self.path / _ATTACHED, version.encode() + b"\n")

    def attached(self) -> str | None:
        """The version whose labels the users have, if it is known."""
        try:
            version = (self.path / _ATTACHED).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return version if version in self.versions() else None

    def previous(self) -> ClusterModel | None:
        """The version that a new fit takes its labels from: the one that was attached last, else the newest."""
        return self.load(self.attached()) if self.versions() else None
