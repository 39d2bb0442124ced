"""Every sink, against a real receiver: actions arrive, in order, with their keys; what fails is judged as it should."""

from __future__ import annotations

import base64
import hmac
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from rules_engine.clock import SECOND
from rules_engine.errors import ProjectError
from rules_engine.sinks.base import Sink, Verdict
from rules_engine.sinks.kinds.file import FileSettings
from rules_engine.sinks.kinds.kafka import KafkaSettings
from rules_engine.sinks.kinds.webhook import WebhookSettings, signed
from rules_engine.sinks.settings import SinkSettings
from rules_engine.triggers.actions import Action, action_key
from tests.docs_pages import ROOT, blocks
from tests.kafka_cluster import Cluster
from tests.receivers import Answer, Open, Receiver, Request, receiver, wait_until

DELIVERED, RETRY, REFUSED = Verdict.DELIVERED, Verdict.RETRY, Verdict.REFUSED


def action(number: int, entity: str = "", **payload: object) -> Action:
    key = action_key(f"mail:{number}:enter:vip:0", "sink")
    return Action(key, "sink", "mail", entity or f"u{number}", "enter", 0, "vip", payload={"number": number, **payload})


@pytest.fixture
def webhook(server: Receiver, opened: Open) -> Callable[..., Sink]:
    """Opens a webhook of the server."""
    return lambda **options: opened(replace(WebhookSettings("crm", server.url, allow=("127.0.0.1",)), **options))


def verdicts(sink: Sink, *actions: Action) -> list[Verdict]:
    return [outcome.verdict for outcome in sink.send(actions)]


# --- every sink -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["webhook", "kafka", "file"])
def test_actions_arrive_whole_and_in_order(
    kind: str, server: Receiver, kafka: Cluster, tmp_path: Path, opened: Open
) -> None:
    settings: dict[str, SinkSettings] = {
        "webhook": WebhookSettings("crm", server.url, allow=("127.0.0.1",)),
        "kafka": KafkaSettings("orders", kafka.brokers, "actions-in-order"),
        "file": FileSettings("audit", "logs/actions.jsonl"),
    }
    actions = [action(number, "å" if number % 3 else "ola", text="«…»\n") for number in range(40)]
    sink = opened(settings[kind])
    assert verdicts(sink, *actions) == [DELIVERED] * 40
    assert sink.send([]) == []
    if kind == "webhook":
        found = [request.body for request in server.accepted()]
    elif kind == "kafka":
        messages = kafka.read("actions-in-order", 40)
        found = [message.value() for message in messages]
        assert {message.key().decode() for message in messages} == {"å", "ola"}
        assert dict(messages[0].headers())["idempotency-key"].decode() == orjson.loads(found[0])["key"]
    else:
        found = (tmp_path / "logs/actions.jsonl").read_bytes().splitlines()
    for entity in ("å", "ola"):
        sent = [one.body() for one in actions if one.entity == entity]
        assert [body for body in found if orjson.loads(body)["entity"] == entity] == sent


@pytest.mark.parametrize(
    "settings",
    [
        WebhookSettings("crm", "https://${NO_SUCH_HOST}/"),
        WebhookSettings("crm", "https://crm.example/", "${NO_SUCH_SECRET}"),
        WebhookSettings("crm", "https://crm.example/", headers=(("authorization", "Bearer ${NO_SUCH_TOKEN}"),)),
        KafkaSettings("orders", "${NO_SUCH_BROKERS}", "t"),
        FileSettings("audit", "${NO_SUCH_FOLDER}/a.jsonl"),
    ],
    ids=str,
)
def test_a_variable_that_is_not_set_is_said(settings: SinkSettings, tmp_path: Path, opened: Open) -> None:
    with pytest.raises(ProjectError, match=r"\$\{NO_SUCH_\w+\}, which is not set") as caught:
        opened(settings)
    assert "set the environment variable" in str(caught.value.hint)


# --- the webhook ----------------------------------------------------------------------------------------------------


def test_a_request_says_what_it_is(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, webhook: Callable[..., Sink]
) -> None:
    monkeypatch.setenv("TOKEN", "t0k3n")
    sink = webhook(headers=(("Authorization", "Bearer ${TOKEN}"), ("x-shop", "1")))
    assert verdicts(sink, action(1)) == [DELIVERED]
    [request] = server.accepted()
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer t0k3n"
    assert request.headers["x-shop"] == "1"
    assert request.headers["idempotency-key"] == request.headers["webhook-id"] == action(1).key
    assert "webhook-signature" not in request.headers


@pytest.mark.parametrize("secret", ["hunter2", "whsec_" + base64.b64encode(b"0123456789abcdef").decode()])
def test_a_request_is_signed(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, secret: str, webhook: Callable[..., Sink]
) -> None:
    monkeypatch.setenv("CRM_SECRET", secret)
    sink = webhook(secret="${CRM_SECRET}")
    before = int(time.time())
    sink.send([action(1)])
    [request] = server.accepted()
    sent_at = int(request.headers["webhook-timestamp"])
    assert before <= sent_at <= time.time()
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    content = f"{request.key}.{sent_at}.".encode() + request.body
    expected = base64.b64encode(hmac.new(key, content, sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """Their reference, which their libraries are tested with."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret, 1_614_265_330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_check_that_the_documentation_shows_works(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, webhook: Callable[..., Sink]
) -> None:
    monkeypatch.setenv("CRM_SECRET", "hunter2")
    webhook(secret="${CRM_SECRET}").send([action(1, text="ø")])
    [request] = server.accepted()
    [shown] = [block for block in blocks(ROOT / "docs/triggers.md") if "def is_ours" in block.text]
    found: dict[str, Any] = {}
    exec(shown.text, found)
    is_ours = found["is_ours"]
    assert is_ours(request.headers, request.body, b"hunter2")
    assert not is_ours(request.headers, request.body, b"hunter3")
    assert not is_ours(request.headers, request.body + b" ", b"hunter2")
    assert not is_ours({**request.headers, "webhook-id": "other"}, request.body, b"hunter2")
    assert not is_ours({**request.headers, "webhook-timestamp": "1700000000"}, request.body, b"hunter2")


def test_the_key_is_the_same_on_every_try_and_the_signature_is_not(
    server: Receiver, monkeypatch: pytest.MonkeyPatch, webhook: Callable[..., Sink]
) -> None:
    monkeypatch.setenv("CRM_SECRET", "hunter2")
    sink = webhook(secret="${CRM_SECRET}")
    server.answer = lambda _: Answer(503)
    assert verdicts(sink, action(1)) == [RETRY]
    time.sleep(1.1)
    server.answer = lambda _: Answer(201)
    assert verdicts(sink, action(1)) == [DELIVERED]
    first, second = server.accepted()
    assert first.key == second.key
    assert first.body == second.body
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, DELIVERED) for status in (200, 201, 202, 204)),
        *((status, RETRY) for status in (408, 425, 429, 500, 502, 503, 504, 507)),
        *((status, REFUSED) for status in (400, 401, 403, 404, 409, 410, 413, 422)),
    ],
)
def test_an_answer_is_judged_by_its_status(
    server: Receiver, status: int, verdict: Verdict, webhook: Callable[..., Sink]
) -> None:
    server.answer = lambda _: Answer(status, body=b"" if status == 204 else b"said so")
    [outcome] = webhook().send([action(1)])
    assert outcome.verdict is verdict
    assert outcome.is_sick == (verdict is RETRY)
    assert outcome.code == ("ok" if verdict is DELIVERED else f"http-{status}")


def test_a_sink_says_how_long_to_wait(server: Receiver, webhook: Callable[..., Sink]) -> None:
    sink = webhook()
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    for text, low, high in (("7", 7, 7), (later, 30, 40), ("999999", 3_600, 3_600), ("-5", 0, 0)):
        server.answer = lambda _, text=text: Answer(429, {"retry-after": text})  # type: ignore[misc]
        [outcome] = sink.send([action(1)])
        assert outcome.retry_after is not None
        assert low <= outcome.retry_after <= high
    for text in ("soon", "nan"):
        server.answer = lambda _, text=text: Answer(503, {"retry-after": text})  # type: ignore[misc]
        assert sink.send([action(1)])[0].retry_after is None


def test_a_redirect_is_not_followed(server: Receiver, webhook: Callable[..., Sink]) -> None:
    with receiver() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            server.answer = lambda _, status=status: Answer(status, {"location": elsewhere.url})  # type: ignore[misc]
            assert verdicts(webhook(), action(1)) == [REFUSED]
        assert elsewhere.accepted() == []


@pytest.mark.parametrize("answer", [Answer(after=3.0), Answer(drips=True)], ids=["silence", "a byte now and then"])
def test_an_answer_that_takes_too_long_is_not_waited_for(
    server: Receiver, answer: Answer, webhook: Callable[..., Sink]
) -> None:
    server.answer = lambda _: answer
    started = time.monotonic()
    [outcome] = webhook(timeout=SECOND // 2).send([action(1)])
    assert time.monotonic() - started < 20
    assert (outcome.verdict, outcome.code, outcome.is_sick) == (RETRY, "timeout", True)


def test_an_answer_without_end_is_not_read(server: Receiver, webhook: Callable[..., Sink]) -> None:
    server.answer = lambda _: Answer(200, body=b"x" * 50_000_000)
    assert verdicts(webhook(), action(1), action(2)) == [DELIVERED] * 2


def test_nobody_there_is_tried_again(opened: Open) -> None:
    with receiver() as gone:
        url = gone.url
    [outcome] = opened(WebhookSettings("crm", url, allow=("127.0.0.1",))).send([action(1)])
    assert (outcome.verdict, outcome.code, outcome.is_sick) == (RETRY, "unreachable", True)


def test_several_requests_are_under_way_at_once_and_one_of_an_entity(
    server: Receiver, webhook: Callable[..., Sink]
) -> None:
    def answer(_: Request) -> Answer:
        wait_until(lambda: server.most >= 16)
        return Answer()

    server.answer = answer
    actions = [action(number, f"u{number % 20}") for number in range(60)]
    assert verdicts(webhook(), *actions) == [DELIVERED] * 60
    assert server.most == 16
    for entity in range(20):
        numbers = [one.action["payload"]["number"] for one in server.accepted() if one.action["entity"] == f"u{entity}"]
        assert numbers == [entity, entity + 20, entity + 40]


def test_what_is_behind_a_failure_of_its_entity_waits(server: Receiver, webhook: Callable[..., Sink]) -> None:
    def answer(request: Request) -> Answer:
        return Answer(500 if request.action["payload"]["number"] == 1 else 200)

    server.answer = answer
    found = webhook().send([action(1, "a"), action(2, "a"), action(3, "b")])
    assert [outcome.verdict for outcome in found] == [RETRY, RETRY, DELIVERED]
    assert [outcome.is_sick for outcome in found] == [True, False, False]
    assert sorted(one.action["payload"]["number"] for one in server.accepted()) == [1, 3]


def test_an_address_that_is_none_is_an_error_without_its_secrets(monkeypatch: pytest.MonkeyPatch, opened: Open) -> None:
    monkeypatch.setenv("CRM_URL", "hunter2")
    with pytest.raises(ProjectError) as caught:
        opened(WebhookSettings("crm", "${CRM_URL}"))
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


# --- the file -------------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[int]:
    return [orjson.loads(line)["payload"]["number"] for line in path.read_bytes().splitlines()]


def test_what_the_file_has_already_is_not_written_again(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "a.jsonl"
    settings = FileSettings("audit", "a.jsonl")
    opened(settings).send([action(1), action(2)])
    # A process was killed here, before it took them off the queue.
    again = opened(settings)
    assert verdicts(again, action(1), action(2), action(3)) == [DELIVERED] * 3
    assert verdicts(again, action(4)) == [DELIVERED]
    assert lines(path) == [1, 2, 3, 4]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_line_that_was_cut_off_is_removed(tmp_path: Path, opened: Open) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(action(1).body() + b"\n" + action(2).body()[:50])
    opened(FileSettings("audit", path.name)).send([action(2), action(3)])
    assert lines(path) == [1, 2, 3]


def test_a_file_may_be_renamed_meanwhile(tmp_path: Path, opened: Open) -> None:
    sink = opened(FileSettings("audit", "a.jsonl"))
    sink.send([action(1)])
    (tmp_path / "a.jsonl").rename(tmp_path / "a.jsonl.1")
    sink.send([action(2)])
    assert (lines(tmp_path / "a.jsonl.1"), lines(tmp_path / "a.jsonl")) == ([1], [2])


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    sink = opened(FileSettings("audit", "logs/a.jsonl"))
    [outcome] = sink.send([action(1)])
    assert (outcome.verdict, outcome.code, outcome.is_sick) == (RETRY, "unwritable", True)
    (tmp_path / "logs").unlink()
    assert verdicts(sink, action(1)) == [DELIVERED]


def test_a_full_disk_leaves_no_half_lines(tmp_path: Path, opened: Open) -> None:
    import resource

    sink = opened(FileSettings("audit", "a.jsonl"))
    assert verdicts(sink, action(1)) == [DELIVERED]
    whole = (tmp_path / "a.jsonl").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 100, before[1]))
    try:
        assert verdicts(sink, action(2), action(3)) == [RETRY] * 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a.jsonl").read_bytes() == whole
    assert verdicts(sink, action(2), action(3)) == [DELIVERED] * 2
    assert lines(tmp_path / "a.jsonl") == [1, 2, 3]


# --- Kafka ----------------------------------------------------------------------------------------------------------


def test_a_message_that_is_too_large_is_refused(kafka: Cluster, tmp_path: Path, opened: Open) -> None:
    settings = KafkaSettings("orders", kafka.brokers, "large", (("message.max.bytes", "2000"),))
    sink = opened(settings)
    assert verdicts(sink, action(1, text="x" * 3_000), action(2)) == [REFUSED, DELIVERED]


def test_brokers_that_are_not_there_are_tried_again(tmp_path: Path, opened: Open) -> None:
    sink = opened(KafkaSettings("orders", "127.0.0.1:1", "t", timeout=SECOND // 2))
    started = time.monotonic()
    found = sink.send([action(1), action(2)])
    assert [outcome.verdict for outcome in found] == [RETRY] * 2
    assert all(outcome.is_sick for outcome in found)
    assert time.monotonic() - started < 20


def test_an_option_that_does_not_exist_is_said(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(ProjectError, match="sink `orders` cannot be opened"):
        opened(KafkaSettings("orders", "127.0.0.1:1", "t", (("no.such.option", "1"),)))
