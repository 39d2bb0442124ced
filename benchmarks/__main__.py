"""Run the benchmarks: all, or those that are named. A benchmark is a module here with a function ``main``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable

import benchmarks


def load() -> dict[str, Callable[[], None]]:
    """Every benchmark by the name of its module."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in names}
    return {name: module.main for name, module in modules.items() if hasattr(module, "main")}


def run(names: list[str]) -> int:
    """Run the named benchmarks, all if none is named; the exit code."""
    found = load()
    unknown = [name for name in names if name not in found]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    for name in names or found:
        found[name]()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
