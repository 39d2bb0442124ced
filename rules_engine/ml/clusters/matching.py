"""The relation of clusters to those of the version before: kept, born, died, split or merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ClusterChange:
    """A cluster that is not simply the one it was.

    Attributes
    ----------
    kind
        ``born`` and ``merged`` are about a new cluster; ``died`` and ``split`` about one of the version before;
        ``renamed`` about one that has another name than in the version before.
    number, label
        the cluster.
    others
        by label, a share of the cluster's users: where they come from (``born``, ``merged``), where they went
        (``died``, ``split``), or the name before (``renamed``). Largest first.
    """

    kind: str
    number: int
    label: str
    others: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Matching:
    """The relation of a model's clusters to those of the version before, by the users that both can label.

    Attributes
    ----------
    previous
        the version before.
    users
        how many users both versions can label, on the data that the new one was fitted to.
    moved
        how many of them are in another cluster than the version before would put them into.
    rand_index
        the adjusted Rand index of the two groupings: 1 if they are the same, about 0 if they have nothing in common.
    overlap
        by number of a kept cluster, the users in both its old and its new form, as a share of those in either.
    changes
        the clusters that are not simply kept.
    by_center
        numbers of clusters that were kept because of where they lie, as too few users could be compared.

    >>> Matching("v1", users=200, moved=30, rand_index=0.8, overlap={1: 0.9}, changes=()).share_moved
    0.15
    """

    previous: str
    users: int
    moved: int
    rand_index: float
    overlap: Mapping[int, float]
    changes: tuple[ClusterChange, ...]
    by_center: tuple[int, ...] = ()

    @property
    def share_moved(self) -> float:
        """Return the share of users who moved; all of them, if nobody can be compared."""
        return self.moved / self.users if self.users else 1.0

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Matching:
        """Return the inverse of :meth:`to_plain`."""
        return cls(
            previous=content["previous"],
            users=content["users"],
            moved=content["moved"],
            rand_index=content["adjusted_rand_index"],
            overlap={cluster["number"]: cluster["overlap"] for cluster in content["kept"]},
            changes=tuple(ClusterChange(**change) for change in content["changes"]),
            by_center=tuple(content["by_center"]),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the matching as data for JSON."""
        return {
            "previous": self.previous,
            "users": self.users,
            "moved": self.moved,
            "share_moved": self.share_moved,
            "adjusted_rand_index": self.rand_index,
            "kept": [{"number": number, "overlap": overlap} for number, overlap in self.overlap.items()],
            "changes": [
                {"kind": c.kind, "number": c.number, "label": c.label, "others": dict(c.others)} for c in self.changes
            ],
            "by_center": list(self.by_center),
        }
