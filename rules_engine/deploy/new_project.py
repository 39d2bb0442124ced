"""A new project from the template: a Feast repository with sample data, segments and their tests."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from rules_engine.diagnostics import listing
from rules_engine.errors import ProjectError
from rules_engine.folders import Project
from rules_engine.redis.valkey import server_binary

#: The instant at which the sample ends; the template's `now`.
SAMPLE_END = datetime(2026, 2, 1, tzinfo=UTC)

_CUSTOMERS = 200
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SUFFIX = ".tmpl"


def new_project(root: Path) -> Project:
    """Make a project in a folder, which may exist as long as no file of the project does.

    Raises
    ------
    ProjectError
        if a file already exists, the folder's name gives no project name, or the folder cannot be written.
    """
    root = root.expanduser().resolve()
    name = project_name(root)
    contents = {root / path: text.replace("@NAME@", name).encode() for path, text in _template().items()}
    data = root / "feature_repo" / "data"
    contents |= {data / "profile.parquet": b"", data / "orders.parquet": b""}
    existing = [str(path.relative_to(root)) for path in contents if path.exists()]
    if existing:
        raise ProjectError(f"{root} already has {listing(existing)}", hint="nothing was written; choose another folder")
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _write_sample(data)
    except OSError as error:
        raise ProjectError(f"cannot write {error.filename or root}: {error.strerror}") from error
    return Project.open(root)


def require_store() -> None:
    """Check that the online store of a new project can run here, before anything is written.

    Raises
    ------
    MissingExtraError
        if the extra that brings it is not installed.
    StoreUnavailableError
        if this system has none.
    """
    server_binary()


def project_name(root: Path) -> str:
    """Return the name of the project in a folder, in the letters that Feast takes.

    Raises
    ------
    ProjectError
        if nothing of the folder's name is left.

    >>> project_name(Path("/srv/My-Shop"))
    'my_shop'
    """
    name = re.sub(r"[^a-z0-9]+", "_", root.name.lower()).strip("_")
    if not _NAME.fullmatch(name):
        raise ProjectError(
            f"`{root.name}` gives no project name",
            hint="begin the folder's name with a letter, e.g. `segments init shop`",
        )
    return name


def _template() -> dict[str, str]:
    """Return the files of the template, by path."""
    return dict(_below(files("rules_engine") / "templates" / "project", ""))


def _below(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    contents = []
    for entry in folder.iterdir():
        if entry.is_dir():
            contents += _below(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            name = entry.name.removesuffix(_SUFFIX)
            contents.append((prefix + name.replace("dot-", ".", 1), entry.read_text(encoding="utf-8")))
    return contents


def _write_sample(folder: Path) -> None:
    """Write two hundred customers, always the same ones."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = random.Random(2026)  # noqa: S311 -- made-up customers, not secrets
    customers = [_customer(rng, number) for number in range(1, _CUSTOMERS + 1)]
    times, text = pa.timestamp("us", tz="UTC"), pa.string()
    profile = {"country": text, "signed_up": times, "newsletter": pa.bool_()}
    orders = {"orders_30d": pa.int64(), "spend_30d": pa.float64(), "last_order": times}
    for name, columns in (("profile", profile), ("orders", orders)):
        schema = pa.schema({"customer_id": text, "event_timestamp": times, **columns})
        rows = [{"event_timestamp": SAMPLE_END - timedelta(hours=1), **customer} for customer in customers]
        parquet.write_table(pa.Table.from_pylist(rows, schema), folder / f"{name}.parquet")


def _customer(rng: random.Random, number: int) -> dict[str, Any]:
    signed_up = SAMPLE_END - timedelta(minutes=rng.randrange(60, rng.choice([20, 900, 900]) * 24 * 60))
    days_since_order = rng.choice([None, *[int(rng.expovariate(1 / 40)) for _ in range(5)]])
    last_order = None
    orders = 0
    if days_since_order is not None:
        last_order = max(signed_up, SAMPLE_END - timedelta(days=days_since_order, minutes=rng.randrange(1, 1440)))
        orders = rng.choice([1, 1, 1, 2, 2, 3, 4, 6]) if SAMPLE_END - last_order < timedelta(days=30) else 0
    return {
        "customer_id": f"c{number:03d}",
        "country": rng.choice(["DK", "DE", "FI", "GB", "NO", "NO", "SE", "SE", "US", None]),
        "signed_up": signed_up,
        "newsletter": rng.random() < 0.6,
        "orders_30d": orders,
        "spend_30d": round(sum(rng.uniform(15, 140) for _ in range(orders)), 2),
        "last_order": last_order,
    }
