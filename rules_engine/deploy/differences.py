"""Find the segments that differ between two sets of definitions, themselves or through those they refer to."""

from __future__ import annotations

from rules_engine.rules.program import Program
from rules_engine.rules.reference_graph import reached

ADDED, CHANGED, AFFECTED, REMOVED = "added", "changed", "affected", "removed"


def differences(before: Program, after: Program) -> dict[str, str]:
    r"""Return by segment what happens to it, where something does.

    >>> from rules_engine.rules.catalog import Catalog
    >>> from rules_engine.rules.load import load_text
    >>> text = "segment: a\nwhen: {feature: u:x, equals: 1}\n---\nsegment: b\nwhen: {not_in_segment: a}"
    >>> old, new = (load_text(found, Catalog(closed=False)).program for found in (text, text.replace("1", "2")))
    >>> differences(old, new)
    {'a': 'changed', 'b': 'affected'}
    """
    old, new = before.segments, after.segments
    kinds = dict.fromkeys(new.keys() - old.keys(), ADDED) | dict.fromkeys(old.keys() - new.keys(), REMOVED)
    kinds |= {name: CHANGED for name in new.keys() & old.keys() if new[name] != old[name]}
    affected = reached(after.dependents, kinds) | reached(before.dependents, kinds)
    kinds |= dict.fromkeys((affected & new.keys() & old.keys()) - kinds.keys(), AFFECTED)
    return dict(sorted(kinds.items()))
