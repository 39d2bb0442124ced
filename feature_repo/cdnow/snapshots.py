"""Recency, frequency and money at the first instant of each month: the rows of the feature view `rfm`."""

from __future__ import annotations

import pandas as pd

WINDOW = pd.Timedelta(days=90)
#: The first instants of the months after the study began; the last one is the instant after its last day.
MONTHS = pd.date_range("1997-02-01", "1998-07-01", freq="MS", tz="UTC")


def rfm(history: pd.DataFrame, months: pd.DatetimeIndex = MONTHS) -> pd.DataFrame:
    """One row per month and customer who had bought by then, from the purchase history alone."""
    return pd.concat([_snapshot(history, month) for month in months], ignore_index=True)


def as_of(history: pd.DataFrame, instant: pd.Timestamp) -> pd.DataFrame:
    """Each customer's latest row at or before an instant, by customer."""
    past = history[history["event_timestamp"] <= instant]
    return past.drop_duplicates("user_id", keep="last").set_index("user_id")


def _snapshot(history: pd.DataFrame, instant: pd.Timestamp) -> pd.DataFrame:
    """The window (instant - 90 days, instant] is the difference of the running totals at its two ends."""
    now = as_of(history, instant)
    before = as_of(history, instant - WINDOW).reindex(now.index)
    return pd.DataFrame(
        {
            "user_id": now.index,
            "event_timestamp": pd.Series(instant, index=now.index, dtype="datetime64[us, UTC]"),
            "recency_days": (instant - now["last_purchase"]).dt.days,
            "tenure_days": (instant - now["first_purchase"]).dt.days,
            "frequency": now["frequency"],
            "monetary_value": now["monetary_value"],
            "mean_basket": now["mean_basket"],
            "purchases_90d": now["frequency"] - before["frequency"].fillna(0).astype("int64"),
            # Both totals are whole cents, so rounding to cents undoes what the float subtraction added.
            "spend_90d": (now["monetary_value"] - before["monetary_value"].fillna(0.0)).round(2),
        }
    )
