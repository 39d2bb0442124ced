"""A shop's clicks with triggers on them, and what these do, worked out by hand: no part of the package is used.

The log has the columns of a public one (`session, aid, ts, type`; types `clicks`, `carts`, `orders`; milliseconds).
One is made up here; the real one is read where it lies beside the repository.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: The test fixture of OTTO's data set (CC BY 4.0): 862 events of 20 users. It is no part of the repository.
REAL = ROOT.parent / "shared" / "data" / "otto" / "otto_events.csv"

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000

EVENTS = """\
events:
  view: {properties: {aid: {type: integer}}, retention: 90d}
  cart: {properties: {aid: {type: integer}}, retention: 90d}
  order: {properties: {aid: {type: integer}}, retention: ever}
"""

DEFINITIONS = """\
segment: abandoned
when: {sequence: [{did: cart}, {did_not: order, within: 24h}], within: 7d}
---
segment: interrupted
when:
  sequence:
    - {did: view}
    - {did: cart, within: 1h}
    - {did_not: [view, cart, order], within: 30m}
  within: 24h
---
segment: keen
when: {did: view, within: 10m, count: {at_least: 5}}
---
segment: no_buyer_yet
when: {all: [{did: view, within: 30d, count: {at_least: 3}}, {did_not: order, within: ever}]}
---
trigger: remind
on_enter: abandoned
delay: 10m
cancel_if: {did: order, within: 10m}
cooldown: 7d
quiet_hours: {from: "21:00", to: "08:00", timezone: UTC}
payload: {aid: {last: {event: cart, of: aid}}}
send: [{stream: reminders}]
---
trigger: help
on_enter: interrupted
cap: {max: 2, per: 7d}
send: [{stream: help}]
---
trigger: congratulate
on_exit: no_buyer_yet
send: [{stream: first_orders}]
---
trigger: thank
on_event: {did: order}
delay: 5m
cooldown: 1h
send: [{stream: thanks}]
"""

#: What the columns hold, as options of `segments simulate`.
COLUMNS = {"entity": "session", "event": "type", "at": "ts"}
WORDS = {"clicks": "view", "carts": "cart", "orders": "order"}

#: One user's events by name: instants and articles, in the order of the file.
Clicks = dict[str, list[tuple[int, int]]]

#: What happens: the instant, the user, the segment or trigger, what it does, and why or with what.
Happening = tuple[int, str, str, str, object]


def write_made_up(path: Path, users: int, seed: int) -> None:
    """Write a log of users who look around, fill carts, and sometimes buy; in disorder, some rows twice."""
    chance = random.Random(seed)
    rows: list[tuple[str, int, int, str]] = []
    for user in range(users):
        at = 1_659_304_800_000 + chance.randrange(7 * DAY)
        for _ in range(chance.randrange(5, 60)):
            at += chance.choice([0, chance.randrange(SECOND), chance.randrange(5 * MINUTE), 30 * MINUTE, DAY, DAY // 3])
            kind = chance.choice(["clicks"] * 6 + ["carts"] * 3 + ["orders"])
            rows.append((f"u{user}", chance.randrange(1_000_000), at, kind))
    rows += chance.sample(rows, len(rows) // 10)
    chance.shuffle(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["session", "aid", "ts", "type"])
        writer.writerows((user, aid, at, kind) for user, aid, at, kind in rows)


def read(path: Path) -> tuple[dict[str, Clicks], int]:
    """Return the log by user, equal rows once, and its last instant."""
    users: dict[str, Clicks] = {}
    with path.open(newline="") as file:
        rows = {(row["session"], int(row["ts"]), WORDS[row["type"]], int(row["aid"])) for row in csv.DictReader(file)}
    for user, at, name, aid in sorted(rows):
        users.setdefault(user, {"view": [], "cart": [], "order": []})[name].append((at, aid))
    return users, max(at for _, at, _, _ in rows)


def happenings(users: dict[str, Clicks], end: int) -> list[Happening]:
    """Return all that happens up to the end, in order."""
    found = [
        (at, user, *rest)
        for user, clicks in users.items()
        for rule in (abandoned, interrupted, keen, no_buyer_yet, thank)
        for at, *rest in rule(clicks, end)
        if at <= end
    ]
    return sorted(found, key=lambda one: (*one[:4], str(one[4])))  # type: ignore[arg-type, misc]


def instants(clicks: Clicks, *names: str) -> list[int]:
    return sorted({at for name in names for at, _ in clicks[name]})


def some(times: list[int], after: int, until: int) -> bool:
    return any(after < at <= until for at in times)


def abandoned(clicks: Clicks, end: int) -> Iterator[tuple[int, str, str, object]]:
    """Judge every cart that stays the latest for a day, and remind of it unless there is a reason not to."""
    carts, orders = instants(clicks, "cart"), instants(clicks, "order")
    reminded = None
    for cart, following in pairwise([*carts, None]):
        at = cart + DAY
        if cart in orders or some(orders, cart, at) or (following is not None and following <= at):
            continue
        yield at, "abandoned", "enter", None
        yield min(cart + 7 * DAY, following or cart + 7 * DAY), "abandoned", "exit", None
        due = at + 10 * MINUTE
        hour = due % DAY // HOUR
        morning = due if 8 <= hour < 21 else due - due % DAY + 8 * HOUR + (DAY if hour >= 21 else 0)
        bought = [order for order in orders if at < order <= min(morning, end)]
        if bought:
            yield bought[0], "remind", "cancelled", None
        elif morning <= end and reminded is not None and reminded > morning - 7 * DAY:
            yield morning, "remind", "suppressed", "cooldown"
        elif morning <= end:
            reminded = morning
            yield morning, "remind", "fired", {"aid": latest_article(clicks["cart"], morning)}


def latest_article(carts: list[tuple[int, int]], now: int) -> set[int]:
    """Return the articles of the latest carts: with several at one instant, any may be the last."""
    latest = max(at for at, _ in carts if at <= now)
    return {aid for at, aid in carts if at == latest}


def interrupted(clicks: Clicks, end: int) -> Iterator[tuple[int, str, str, object]]:
    """For every view, find the first cart within an hour that half an hour of nothing follows."""
    views, carts, orders = (instants(clicks, name) for name in ("view", "cart", "order"))
    anything = instants(clicks, "view", "cart", "order")
    helped: list[int] = []
    for view, following in pairwise([*views, None]):
        quiet = [
            cart
            for cart in carts
            if view <= cart <= view + HOUR and cart not in orders and not some(anything, cart, cart + 30 * MINUTE)
            if following is None or following > cart + 30 * MINUTE
        ]
        if not quiet:
            continue
        at = quiet[0] + 30 * MINUTE
        yield at, "interrupted", "enter", None
        yield min(view + DAY, following or view + DAY), "interrupted", "exit", None
        if at > end:
            continue
        if sum(one > at - 7 * DAY for one in helped) >= 2:
            yield at, "help", "suppressed", "cap"
        else:
            helped.append(at)
            yield at, "help", "fired", {}


def keen(clicks: Clicks, _end: int) -> Iterator[tuple[int, str, str, object]]:
    """Look at every instant at which a view comes, or is ten minutes old."""
    views = [at for at, _ in clicks["view"]]
    yield from turns("keen", views, 10 * MINUTE, lambda now: sum(now - 10 * MINUTE < at <= now for at in views) >= 5)


def no_buyer_yet(clicks: Clicks, end: int) -> Iterator[tuple[int, str, str, object]]:
    views, orders = [at for at, _ in clicks["view"]], instants(clicks, "order")

    def holds(now: int) -> bool:
        return sum(now - 30 * DAY < at <= now for at in views) >= 3 and not some(orders, 0, now)

    for at, name, change, nothing in turns("no_buyer_yet", [*views, *orders], 30 * DAY, holds):
        yield at, name, change, nothing
        if change == "exit" and at <= end:
            yield at, "congratulate", "fired", {}


def turns(name: str, times: list[int], long: int, holds) -> Iterator[tuple[int, str, str, object]]:  # type: ignore[no-untyped-def]
    before = False
    for now in sorted({at + step for at in times for step in (0, long)}):
        after = holds(now)
        if after != before:
            yield now, name, "enter" if after else "exit", None
        before = after


def thank(clicks: Clicks, end: int) -> Iterator[tuple[int, str, str, object]]:
    """Thank for every order after five minutes, but not again within an hour; several orders have one instant."""
    thanked = None
    for at, _ in clicks["order"]:
        due = at + 5 * MINUTE
        if due > end:
            continue
        if thanked is not None and thanked > due - HOUR:
            yield due, "thank", "suppressed", "cooldown"
        else:
            thanked = due
            yield due, "thank", "fired", {}
