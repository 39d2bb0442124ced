"""A customer's purchases so far, at every purchase: the rows of the feature view `purchase_history`."""

from __future__ import annotations

from bisect import insort

import numpy as np
import pandas as pd

#: A purchase of a day counts from the last second of that day, UTC. The data has no times of day: an earlier
#: instant would let a row as of noon see what was bought in the evening, and the next midnight would put the
#: purchase on the wrong day.
WITHIN_DAY = pd.Timedelta(days=1) - pd.Timedelta(seconds=1)


def purchase_history(accepted: pd.DataFrame) -> pd.DataFrame:
    """One row per customer and day with a purchase, from this and the customer's earlier purchases only.

    Money is summed in whole cents, so that a sum does not depend on the order of its terms.
    """
    days = accepted.groupby(["user_id", "day"], as_index=False, sort=True)[["items", "cents"]].sum()
    by_user = days.groupby("user_id", sort=False)
    frequency = by_user.cumcount() + 1
    cents = by_user["cents"].cumsum()
    instant = _instant(days["day"])
    return pd.DataFrame(
        {
            "user_id": days["user_id"].astype("str"),
            "event_timestamp": instant,
            "frequency": frequency.astype("int64"),
            "items": by_user["items"].cumsum(),
            "monetary_value": cents / 100,
            "mean_basket": cents / frequency / 100,
            "last_basket": days["cents"] / 100,
            "typical_gap_days": _typical_gap(by_user["day"].diff()),
            "first_purchase": _instant(by_user["day"].transform("first")),
            "last_purchase": instant,
        }
    )


def _instant(day: pd.Series) -> pd.Series:
    return (day + WITHIN_DAY).dt.tz_localize("UTC").astype("datetime64[us, UTC]")


def _typical_gap(gaps: pd.Series) -> np.ndarray:
    """The median of the gaps so far, customer by customer; a customer's first row has no gap."""
    medians = np.full(len(gaps), np.nan)
    seen: list[int] = []
    for row, gap in enumerate(gaps.dt.days):
        if np.isnan(gap):
            seen = []
            continue
        insort(seen, int(gap))
        half = len(seen) // 2
        medians[row] = seen[half] if len(seen) % 2 else (seen[half - 1] + seen[half]) / 2
    return medians
