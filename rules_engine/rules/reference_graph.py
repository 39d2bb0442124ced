"""References between names as a graph: in an order that follows them, and backwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping


def references_first(references: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield the names, each after all that it refers to; those in a circle, or that lead to one, are left out.

    So are those that refer to a name which is not defined, directly or through others.

    >>> list(references_first({"a": ["b"], "b": [], "c": ["d"], "d": ["c"], "e": ["gone"]}))
    ['b', 'a']
    """
    referring = reversed_references(references)
    missing = {name: len(set(names)) for name, names in references.items()}
    ready = deque(name for name, count in missing.items() if not count)
    while ready:
        name = ready.popleft()
        yield name
        for other in referring.get(name, ()):
            missing[other] -= 1
            if not missing[other]:
                ready.append(other)


def reversed_references(references: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return by name those that refer to it.

    >>> reversed_references({"a": ["b"], "c": ["b", "a"]})
    {'b': ['a', 'c'], 'a': ['c']}
    """
    referring: dict[str, list[str]] = {}
    for name, names in references.items():
        for reference in set(names):
            referring.setdefault(reference, []).append(name)
    return referring


def reached(references: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    """Return the names to which references lead from some names, directly or through others; these are among them.

    >>> sorted(reached({"a": ["b"], "b": ["c"], "d": ["a"]}, ["a"]))
    ['a', 'b', 'c']
    """
    names = set(start)
    waiting = list(names)
    while waiting:
        new = set(references.get(waiting.pop(), ())) - names
        names |= new
        waiting += new
    return names
