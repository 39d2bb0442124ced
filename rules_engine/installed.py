"""Tell which distribution is installed: feast-segments, or the client with only what answering and tracking need."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

WHOLE, CLIENT = "feast-segments", "feast-segments-client"


def own_version() -> str:
    """Return the version of whichever is installed.

    >>> own_version().count(".")
    2
    """
    return version(WHOLE if is_whole() else CLIENT)


def is_whole() -> bool:
    """Say whether feast-segments is installed as a whole, with Feast and what batch commands need.

    >>> is_whole()
    True
    """
    try:
        version(WHOLE)
    except PackageNotFoundError:
        return False
    return True
