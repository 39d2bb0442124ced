"""Build the offline features of the demo from the CDNOW purchases: `python feature_repo/build.py`.

Writes to feature_repo/data/: purchase_history.parquet, rfm.parquet, empty user_clusters.parquet and
purchase_propensity.parquet if there are none, and rejected_purchases.csv. Running it again gives the same files.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cdnow import parquet, purchases
from cdnow.history import purchase_history
from cdnow.snapshots import rfm
from rich.console import Console

from rules_engine.errors import SegmentsError

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Report:
    """What a build read and wrote."""

    purchases: purchases.Purchases
    history_rows: int
    rfm_rows: int
    seconds: float


def build(source: Path, data: Path, console: Console) -> Report:
    """Read, validate and write everything."""
    started = time.perf_counter()
    data.mkdir(parents=True, exist_ok=True)
    with console.status("Reading the purchases"):
        read = purchases.read(source)
        _write_rejected(read, data / "rejected_purchases.csv")
    with console.status("Building purchase_history"):
        history = purchase_history(read.accepted)
        parquet.write(data / "purchase_history.parquet", history, parquet.PURCHASE_HISTORY)
    with console.status("Building rfm"):
        snapshots = rfm(history)
        parquet.write(data / "rfm.parquet", snapshots, parquet.RFM)
    parquet.write_empty(data / "user_clusters.parquet", parquet.USER_CLUSTERS)
    parquet.write_empty(data / "purchase_propensity.parquet", parquet.PURCHASE_PROPENSITY)
    return Report(read, len(history), len(snapshots), time.perf_counter() - started)


def _write_rejected(read: purchases.Purchases, path: Path) -> None:
    """The file is written even if it has no rows, so that an old one never stands for a new build."""
    read.rejected.to_csv(path, index=False)


def show(report: Report, console: Console) -> None:
    """Print what was read, what was kept and why, what was rejected and why, and what was written."""
    read = report.purchases
    customers = read.accepted["user_id"].nunique()
    where = "  see feature_repo/data/rejected_purchases.csv" if len(read.rejected) else ""
    lines = [
        f"Read {len(read.accepted) + len(read.rejected):,} purchase lines of {customers:,} customers",
        f"  accepted  {len(read.accepted):>9,}",
        f"    of them {read.repeated:>9,}  equal to an earlier line of the same day: kept, they may be real",
        f"    of them {read.free:>9,}  free of charge: kept",
        f"  rejected  {len(read.rejected):>9,}{where}",
        *(f"            {count:>9,}  {reason}" for reason, count in read.reasons.items()),
    ]
    wrote = f"Wrote {report.history_rows:,} rows of purchase_history and {report.rfm_rows:,} of rfm"
    lines.append(f"{wrote} in {report.seconds:.1f} s")
    console.print("\n".join(lines), highlight=False, markup=False)


def main() -> int:
    """Build the demo's data and say what was done. Returns the exit code."""
    console = Console(soft_wrap=True)
    try:
        show(build(purchases.locate(), DATA, console), console)
    except SegmentsError as error:
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
