"""Run the benchmarks: all, or those that are named. A benchmark is a module here with a function ``main``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable

import benchmarks


def names() -> list[str]:
    """The modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")


def load(name: str) -> Callable[[], None] | None:
    """The benchmark in a module; None if it holds none, but something that others use."""
    main: Callable[[], None] | None = getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)
    return main


def run(wanted: list[str]) -> int:
    """Run the named benchmarks, all if none is named; the exit code."""
    unknown = [name for name in wanted if name not in names()]
    found = {} if unknown else {name: load(name) for name in wanted or names()}
    unknown += [name for name in wanted if found.get(name, run) is None]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}", file=sys.stderr)
        return 2
    for main in found.values():
        if main is not None:
            main()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
