"""Importing Feast: quickly, and without its noise.

Only commands that change or materialize the feature store do this; see ``read_plan`` for how requests get by without.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

#: Loggers that report progress or advice which our commands give in their own words.
_CHATTY = ("feast", "ibis", "asyncio")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages below errors of Feast and what it uses; exceptions pass.

    They tell the user nothing that our own messages do not: deprecations between Feast and its dependencies, advice
    on experimental parts, and one line for each step.
    """
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def setting(config: Any, name: str, *, value: Any) -> Iterator[None]:
    """Change one attribute of a Feast configuration for a while; nothing happens if it has no such attribute."""
    if not hasattr(config, name):
        yield
        return
    original = getattr(config, name)
    setattr(config, name, value)
    try:
        yield
    finally:
        setattr(config, name, original)


def import_feast() -> ModuleType:
    """Import Feast, in a quarter of the time and without warnings.

    Of the four to five seconds that Feast takes to import, typeguard takes three or more: it rewrites every class
    that checks the types of its arguments. During the import its decorator is replaced with one that does nothing,
    as it is under ``python -O``. What is lost is the check of the arguments of definitions; ``feast_objects``
    serialises every definition instead, which refuses values of a wrong type as well.

    Importing Feast also adds global warning filters, which are taken back.
    """
    if "feast" in sys.modules:
        return sys.modules["feast"]
    with quiet(), _without_typeguard():
        import feast
        import feast.feature_store
        import feast.repo_operations
    feast_module: ModuleType = feast
    return feast_module


@contextlib.contextmanager
def _without_typeguard() -> Iterator[None]:
    try:
        import typeguard
    except ImportError:  # a Feast that no longer uses it
        yield
        return
    original = typeguard.typechecked
    typeguard.typechecked = _unchecked
    try:
        yield
    finally:
        typeguard.typechecked = original


def _unchecked(target: Any = None, **_options: Any) -> Any:
    """Return ``typeguard.typechecked`` without its effect: used bare or with options."""
    if target is None:
        identity: Callable[[Any], Any] = lambda decorated: decorated  # noqa: E731
        return identity
    return target
