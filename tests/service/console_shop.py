"""A shop with all that the console shows: events, triggers, a sink that refuses, refused events, hostile names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.events.streams import encode_raw
from rules_engine.features.feast_import import quiet
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.worker import Worker
from tests.service import shop

#: By role, the key that the project knows.
KEYS = {**shop.KEYS, "console": "console-key-of-the-shop"}
ENVIRONMENT = {f"SHOP_{role.upper()}_KEY": key for role, key in KEYS.items()} | {"CRM_SECRET": "hunter2"}

#: What no page may run, forge or lose: markup, terminal codes, letters that turn the direction of writing, and length.
MARKUP = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
TERMINAL = "red\x1b[31mred\nnext: line"
TURNED = "a\u202eb\u200bc"
LONG = "x" * 900
KEYS_OF_PEOPLE = (MARKUP, TERMINAL, TURNED, LONG)

_SEGMENTS = """\
project: shop
sinks:
  crm: {{webhook: "{url}", secret: "${{CRM_SECRET}}", timeout: 5s, allow: [127.0.0.1]}}
service:
  keys:
    evaluate: ["${{SHOP_EVALUATE_KEY}}"]
    track: ["${{SHOP_TRACK_KEY}}"]
    console: ["${{SHOP_CONSOLE_KEY}}"]
    read: ["${{SHOP_READ_KEY}}"]
    admin: ["${{SHOP_ADMIN_KEY}}"]
---
segment: adults
description: 'People of age <b>in bold</b> "quoted" {markup}'
owner: "a{turned}b <i>"
tags: [value, '<u>tag</u>']
public: true
when: {{feature: profile:age, at_least: 18}}
---
segment: keen
description: Looked at two pages within an hour
when: {{did: view, within: 1h, count: {{at_least: 2}}}}
---
segment: mobile
when: {{context: device, equals: mobile}}
---
segment: wealthy
when: {{all: [{{in_segment: adults}}, {{feature: profile:spent, at_least: 100}}]}}
---
trigger: greet
on_enter: keen
send: [{{webhook: crm}}, {{stream: greetings}}]
---
trigger: thank
on_event: {{did: purchase}}
delay: 1d
send: [{{stream: greetings}}]
---
trigger: held
on_enter: keen
if: {{feature: profile:age, at_least: 99}}
send: [{{stream: greetings}}]
"""

_TEST = """\
test: adults
cases:
  - {name: of age, features: {profile:age: 18}, expect: true}
  - {name: a child, features: {profile:age: 3}, expect: true}
"""


def files(url: str) -> dict[str, str]:
    """Return the files of the project; its sink is at an address."""
    segments = _SEGMENTS.format(url=url, markup=MARKUP.replace("'", "''"), turned="\\u202e")
    return {**shop.FILES, "segments/a.yaml": segments, "segments/a.test.yaml": _TEST}


def put_into_effect(project: Project) -> None:
    """Apply and materialize the project, and let people do things that workers have seen to."""
    (project.feature_repo / "data").mkdir()
    hostile = dict.fromkeys(KEYS_OF_PEOPLE, (MARKUP, 40, 500.0))
    people = shop.rows(ada=("NO", 36, 120.5), bob=("DE", 17, 0.0), cyd=(None, None, 3.0), **hostile)
    people.to_parquet(project.feature_repo / "data" / "profile.parquet")
    with quiet():
        apply_project(project)
        materialize(project)
    Worker(project).run(once=True)  # looks at everybody for the first time: who comes later enters
    _let_things_happen(project)
    Worker(project).run(once=True)


def _let_things_happen(project: Project) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    with SegmentClient(project) as client:
        for entity in ("ada", MARKUP):
            for number in range(2):
                client.track(entity, "view", {"page": MARKUP}, at=at + timedelta(seconds=number))
            client.track(entity, "purchase", {"sku": TURNED, "amount": 12.5}, at=at)
    sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    try:
        sink.report([("ada", encode_raw("ada", MARKUP, at.isoformat(), "e1", {}))])
    finally:
        sink.close()
