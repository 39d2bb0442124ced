"""Read the CDNOW purchases, validate every line, and keep the rejected ones with their reason.

The file holds what 23,570 people bought at CDNOW from January 1997 to June 1998, who all bought for the first time
in the first quarter of 1997: 69,659 lines of customer, date, number of CDs and dollars. What a look at it shows,
and what follows:

* There are no times of day and no order numbers. 2,068 lines share customer and day with an earlier line. As in the
  published studies of this file, one customer's lines of one day are one purchase.
* 255 lines are equal to an earlier line in all four columns. Same-day pairs of single CDs have the same price in
  24% of cases, where the price list alone would give 3%; customer 00499 alone has 25 such lines among 110. Some may
  be entered twice, but most look like equal order lines, and nothing in the file tells the two apart. So they are
  **kept**, and counted as `repeated`. They weigh little: the number of purchases does not change at all, and
  spending by 0.2%.
* What is certainly a duplicate is a line that is delivered twice: lines are grouped by customer, so a line of a
  customer that comes back *after other customers' lines* and equals one of the customer's earlier group repeats a
  delivery. Such lines are rejected. This file has none.
* 80 lines cost $0.00, each a single CD, nine in ten of them a customer's first purchase in early 1997: a free
  introductory CD. It is a real order, so it counts as a purchase of no money. 68 customers never spent anything.
* There is no separate list of customers. The study's panel is its own definition: 23,570 people, numbered 00001 to
  23570 without a gap. Any other number is an unknown user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from rules_engine.errors import DataError, MissingExtraError

HEADER = ("customer_id", "date", "number_of_cds", "dollar_value")
FIRST_DAY, LAST_DAY = pd.Timestamp("1997-01-01"), pd.Timestamp("1998-06-30")
PANEL_SIZE = 23_570


@dataclass(frozen=True)
class Purchases:
    """The outcome of validation.

    Attributes
    ----------
    accepted
        one row per valid line: ``line``, ``user_id``, ``day`` (midnight, without zone), ``items``, ``cents``.
    rejected
        one row per rejected line: ``line``, ``reason``, ``text``.
    repeated
        how many accepted lines equal an earlier accepted line; they are kept.
    free
        how many accepted lines cost nothing; they are kept.
    """

    accepted: pd.DataFrame
    rejected: pd.DataFrame
    repeated: int = field(default=0)
    free: int = field(default=0)

    @property
    def reasons(self) -> dict[str, int]:
        """How many lines were rejected, by reason, most frequent first."""
        return {str(reason): int(count) for reason, count in self.rejected["reason"].value_counts().items()}


def locate() -> Path:
    """The purchase file inside the installed package `lifetimes`, which is not imported: it needs an old pandas.

    Raises
    ------
    MissingExtraError
        if the package is not installed.
    DataError
        if the package holds no such file.
    """
    spec = find_spec("lifetimes")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("lifetimes", "demo", "the CDNOW demo data")
    path = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "CDNOW_master.txt"
    if not path.is_file():
        raise DataError(f"the package lifetimes holds no {path.name}", hint="pip install 'lifetimes==0.11.3'")
    return path


def panel() -> frozenset[str]:
    """The known customers: the study's 23,570 people by their running number."""
    return frozenset(f"{number:05d}" for number in range(1, PANEL_SIZE + 1))


def read(path: Path, customers: frozenset[str] | None = None) -> Purchases:
    """Read and validate a purchase file.

    Parameters
    ----------
    path
        a text file of four columns separated by blanks, under the header of CDNOW_master.txt.
    customers
        the customers who are known; by default the CDNOW panel.

    Raises
    ------
    DataError
        if the file cannot be read or does not begin with the expected header.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(f"cannot read the purchases: {error}") from error
    header = tuple(lines[0].split())
    if header != HEADER:
        raise DataError(
            f"{path}:1: expected the columns `{' '.join(HEADER)}`, found `{' '.join(header)}`",
            hint="this reads the layout of CDNOW_master.txt only",
        )
    frame = pd.DataFrame({"line": range(2, len(lines) + 1), "text": pd.Series(lines[1:], dtype="str")})
    return _validate(frame, panel() if customers is None else customers)


def _validate(frame: pd.DataFrame, customers: frozenset[str]) -> Purchases:
    """Give each line the first reason that speaks against it, and split the lines by whether there is one."""
    columns = frame["text"].str.split(expand=True).reindex(columns=range(len(HEADER) + 1))
    four = columns[3].notna() & columns[4].isna()
    eight_digits = columns[1].where(columns[1].str.fullmatch("[0-9]{8}", na=False))
    day = pd.to_datetime(eight_digits, format="%Y%m%d", errors="coerce")
    items = _number(columns[2], r"-?[0-9]{1,9}")
    dollars = _number(columns[3], r"-?[0-9]{1,9}(\.[0-9]{1,2})?")

    checks = (
        (~four, f"malformed: expected {len(HEADER)} columns"),
        (day.isna(), "malformed: the date is no day YYYYMMDD"),
        (items.isna(), "malformed: the number of CDs is no whole number"),
        (dollars.isna(), "malformed: the dollar value is no number with at most two decimals"),
        ((day < FIRST_DAY) | (day > LAST_DAY), f"out of range: the date lies outside {FIRST_DAY:%F} to {LAST_DAY:%F}"),
        (items <= 0, "out of range: the number of CDs is below 1"),
        (dollars < 0, "out of range: the dollar value is negative"),
        (~columns[0].isin(customers), "unknown user: not in the customer list"),
    )
    reason = pd.Series(pd.NA, index=frame.index, dtype="string")
    for failed, text in checks:
        reason = reason.mask(reason.isna() & failed, text)

    accepted = pd.DataFrame(
        {"line": frame["line"], "user_id": columns[0], "day": day, "items": items, "cents": (dollars * 100).round()}
    )[reason.isna()].astype({"items": "int64", "cents": "int64"})
    delivered_twice = _delivered_twice(accepted)
    reason.loc[delivered_twice] = "duplicate: the same line was delivered before"
    accepted = accepted.drop(delivered_twice)

    rejected = frame.assign(reason=reason)[reason.notna()]
    repeated = accepted.duplicated(["user_id", "day", "items", "cents"])
    return Purchases(
        accepted.reset_index(drop=True),
        rejected[["line", "reason", "text"]].reset_index(drop=True),
        repeated=int(repeated.sum()),
        free=int((accepted["cents"] == 0).sum()),
    )


def _number(column: pd.Series, pattern: str) -> pd.Series:
    return pd.to_numeric(column.where(column.str.fullmatch(pattern, na=False)), errors="coerce")


def _delivered_twice(accepted: pd.DataFrame) -> pd.Index:
    """The lines that equal a line of an earlier group of their customer; equal lines within one group do not count."""
    group = (accepted["user_id"] != accepted["user_id"].shift()).cumsum().rename("group")
    keys = ["user_id", "day", "items", "cents"]
    first_group = group.groupby([accepted[key] for key in keys]).transform("min")
    return accepted.index[group > first_group]
