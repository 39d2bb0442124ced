"""The small pools that random definitions and users are drawn from, so that values meet literals often."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

TICK = timedelta(microseconds=1)


def float32(value: float) -> float:
    """Return the float64 that a stored float32 widens to."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


#: Instants of evaluation: an ordinary one, the turn of a year, both changes of the clock in Berlin, a leap day.
NOWS = (
    datetime(2024, 1, 1, 12, tzinfo=UTC),
    datetime(2023, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 3, 31, 0, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 10, 27, 1, 0, tzinfo=UTC),
    datetime(2024, 2, 29, 9, 0, 0, 123_456, tzinfo=UTC),
)
DURATIONS = ("1s", "10s", "1m", "30m", "1h", "24h", "1d", "7d", "2w", "30d")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
NO_ZONES = ("Mars/Olympus", "", "../etc", "berlin")
TIMES_OF_DAY = ("00:00", "00:30", "02:30", "06:30", "09:00", "12:00", "12:00:01", "17:00", "23:59:59")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

TYPES = (
    *("Int64", "Int64", "Int32", "Float64", "Float64", "Float32", "String", "String", "Bool"),
    *(
        "UnixTimestamp",
        "UnixTimestamp",
        "UnixTimestamp",
        "UnixTimestamp",
        "Array(String)",
        "Array(Int64)",
        "Array(Float64)",
        "Bytes",
    ),
)

#: Of users whose answers change with time alone.
LIVELY_TYPES = ("UnixTimestamp", "UnixTimestamp", "UnixTimestamp", "Int64", "String", "Bool")

SMALL_INTEGERS = (0, 1, 2, 3, 5, 10, -1)
INTEGERS = (*SMALL_INTEGERS, *SMALL_INTEGERS, 2**31 - 1, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63))
HALVES = (0.0, -0.0, 0.5, 1.0, 2.0, 2.5, 5.0, -1.0)
FLOATS = (*HALVES, 0.1, 0.2, 0.3, 0.1 + 0.2, float32(0.1), 2.0**53, 2.0**63, 5e-324, 1e308, 16_777_216.0)
ENDLESS = (math.inf, -math.inf)
FLOATS32 = (*HALVES, float32(0.1), float32(0.2), 16_777_216.0, float32(1e-45))

SHORT_STRINGS = ("a", "b", "ab", "A", "Ab", "")
STRINGS = (
    *SHORT_STRINGS,
    *(
        "mobile",
        "Mobile",
        "MOBILE",
        "NO",
        "no",
        "5",
        "null",
        " ",
        "a b",
        "a\nb",
        "a\n",
        "%",
        "_",
        "a_",
        "it's",
        '"',
        "\\",
    ),
    *("ß", "ẞ", "ss", "İ", "i", "ı", "I", "Σ", "σ", "ς", "é", "e\u0301", "É", "\u212a", "\U0001f600", "a\U0001f600"),
    *("ab" * 600, "a\u00a0b", "0x1F"),
)
PATTERNS = ("a", "^a", "b$", "^a.?b$", "^[0-9]+$", r"^\w+$", r"\s", "^(ab)+$", "^.$", r"\bmobile\b", r"^[^a]*$", "^$")
#: Without letters that some engines fold with letters beyond ASCII (i, k, s).
FOLDED_PATTERNS = ("a", "^a", "^AB$", "^(Ab)+$", "é", r"^\D+$", "mob", "^$")

EVENTS = ("view", "view", "view", "cart", "cart", "buy")
#: Property name -> kind of its values.
PROPERTIES = {"sku": "string", "price": "number", "gift": "bool", "due": "time", "tags": "list"}
PRICES = (0, 1, 2, 2, 5, 10, -1, 0.5, 2.5, 1.0, -0.0)
INEXACT_PRICES = (*PRICES, 0.1, 0.2, 0.3, 2**53 + 1, 1e16, 1e308, 2**62)
IDS = ("a", "b", "9", "10")
CONTEXT = {"device": "string", "cart": "number", "opened": "time", "logged_in": "bool", "items": "list"}

#: Values that no property or context value of this kind may have: they count as missing.
WRONG: dict[str, tuple[Any, ...]] = {
    "string": (1, True, ["a"]),
    "number": ("1", True, [1]),
    "bool": (0, 1, "true"),
    "time": (1_704_110_400, "soon"),
    "list": ("a", 1, {"a": 1}),
}
