"""What sinks must not do: tell secrets, send or write to where nobody meant, and write an action twice to a file."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from rules_engine.delivery.courier import Courier
from rules_engine.delivery.dispatch import enqueue
from rules_engine.delivery.queues import undelivered
from rules_engine.errors import ProjectError
from rules_engine.sinks.base import DELIVERED, Message, Outcome, Sink, Verdict, open_sink
from rules_engine.sinks.kinds.file import FileSettings
from rules_engine.sinks.kinds.kafka import KafkaSettings
from rules_engine.sinks.kinds.webhook import WebhookSettings
from rules_engine.sinks.settings import SinkSettings, text
from rules_engine.triggers.actions import Action
from tests.receivers import Open, Receiver, receiver

SECRET = "s3cr3t-token-abc"


def action(number: int, sink: str = "webhook:crm") -> Action:
    return Action(f"k{number}", sink, "mail", f"u{number}", "enter", 0, "vip", payload={"number": number})


# --- secrets --------------------------------------------------------------------------------------------------------

#: What secrets that were mounted as files, or typed by hand, look like.
WRONG = {
    "a line break at the end": f"{SECRET}\n",
    "a line break of Windows": f"{SECRET}\r\n",
    "a line break in it": f"{SECRET}\nx-admin: 1",
    "white space in front": f" {SECRET}",
    "another letter": f"{SECRET}é",
    "a character that cannot be seen": f"{SECRET}\u200b",
    "bytes that are no UTF-8": f"{SECRET}\udcff",
    "nothing": "",
    "only white space": "  \n",
}
USES = {
    "a header": WebhookSettings("crm", "https://crm.example/", headers=(("authorization", "Bearer ${CRM_TOKEN}"),)),
    "the key of signatures": WebhookSettings("crm", "https://crm.example/", "${CRM_TOKEN}"),
    "an address": WebhookSettings("crm", "https://crm.example/${CRM_TOKEN}"),
    "a password of Kafka": KafkaSettings("crm", "127.0.0.1:1", "t", (("sasl.password", "${CRM_TOKEN}"),)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_secret_is_named_by_its_variable(
    value: str, use: str, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    # Kafka takes any letters, and addresses are written in those of any language.
    fine = use in ("a password of Kafka", "an address") and value == "another letter"
    monkeypatch.setenv("CRM_TOKEN", WRONG[value])
    if fine:
        open_sink(USES[use], tmp_path).close()
        return
    with pytest.raises(ProjectError, match=r"\$\{CRM_TOKEN\}") as caught:
        open_sink(USES[use], tmp_path)
    assert SECRET not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__} {caught.value.__context__}"
    # Nor does it reach a log or the store, and the action waits for the mended secret.
    name = str(USES[use])
    courier = Courier(client, "shop", USES[use], tmp_path)
    enqueue(client, "shop", [action(1, name)])
    with caplog.at_level(logging.DEBUG):
        courier.step()
    assert "${CRM_TOKEN}" in caplog.text
    assert SECRET not in caplog.text
    assert courier.waiting() == 1
    courier.release()


def test_a_careless_sink_tells_no_secret_either(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    @dataclass(frozen=True)
    class Settings(SinkSettings):
        """A sink that tells its token."""

        token: str = field(metadata=text("Its token.", is_secret=True))

    class Talkative(Sink, kind="talkative", settings=Settings):
        raises = False

        def __init__(self, settings: Settings, _: Path) -> None:
            self._token = settings.token

        def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
            if self.raises:
                raise RuntimeError(f"illegal token {self._token!r}")
            return [Outcome(Verdict.REFUSED, "refused", f"illegal token {self._token!r}")] * len(actions)

    monkeypatch.setenv("CRM_TOKEN", SECRET)
    courier = Courier(client, "shop", Settings("crm", "${CRM_TOKEN}"), tmp_path)
    enqueue(client, "shop", [action(1, "talkative:crm")])
    with caplog.at_level(logging.DEBUG):
        courier.step()
        _, [given_up] = undelivered(client, "shop")
        assert given_up.reason["message"] == "illegal token '${CRM_TOKEN}'"
        Talkative.raises = True
        enqueue(client, "shop", [action(2, "talkative:crm")])
        courier.step()
    assert "RuntimeError at" in caplog.text
    stored = b"".join(
        part for key in client.scan_iter() if client.type(key) == b"stream" for part in _parts(client, key)
    )
    assert SECRET not in caplog.text
    assert SECRET.encode() not in stored
    courier.release()


def _parts(client: redis.Redis, key: bytes) -> Iterator[bytes]:
    entries: Any = client.xrange(key)
    for _, fields in entries:
        yield from fields.values()


def test_httpx_does_not_log_the_address(
    server: Receiver, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("CRM_PATH", SECRET)
    sink = opened(WebhookSettings("crm", f"{server.url}${{CRM_PATH}}", allow=("127.0.0.1",)))
    with caplog.at_level(logging.DEBUG):
        assert sink.send([action(1)]) == [DELIVERED]
    assert server.accepted()[0].path.endswith(SECRET)
    assert SECRET not in caplog.text


# --- where webhooks go ----------------------------------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "0.0.0.0", "localhost", "crm.localhost",
    "LOCALHOST.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]", "[2002:7f00:1::]", "[fe80::1]", "[fd00::1]", "169.254.169.254", "10.0.0.1", "172.16.0.1",
    "192.168.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "１２７.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_an_address_that_is_not_public_is_refused(
    host: str, opened: Open, monkeypatch: pytest.MonkeyPatch, server: Receiver
) -> None:
    port = server.url.rpartition(":")[2].strip("/")
    monkeypatch.setenv("CRM_URL", f"http://{host}:{port}/")
    for url in (f"http://{host}:{port}/", "${CRM_URL}"):
        with pytest.raises(ProjectError, match="public addresses only"):
            opened(WebhookSettings("crm", url))
    assert server.accepted() == []


Resolver = Callable[..., list[Any]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], list[str]]:
    """Answers for some names what a server of names would, each answer in turn; gives the names that were asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def install(answers: dict[str, list[str]]) -> list[str]:
        def look_up(host: Any, *arguments: Any, **more: Any) -> list[Any]:
            name = host.decode() if isinstance(host, bytes) else host
            if name in answers:
                asked.append(name)
                host = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
            return list(real(host, *arguments, **more))

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        return asked

    return install


def test_a_name_that_leads_to_a_private_address_is_not_followed(
    server: Receiver, opened: Open, resolver: Callable[[dict[str, list[str]]], list[str]]
) -> None:
    resolver({"crm.example": ["127.0.0.1"], "meta.example": ["169.254.169.254"]})
    for name in ("crm.example", "meta.example"):
        [outcome] = opened(WebhookSettings("crm", server.url.replace("127.0.0.1", name))).send([action(1)])
        assert (outcome.verdict, outcome.code, outcome.is_sick) == (Verdict.RETRY, "private-address", True)
    assert server.accepted() == []


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    server: Receiver, opened: Open, resolver: Callable[[dict[str, list[str]]], list[str]]
) -> None:
    """A name that leads elsewhere at the second look misleads nobody: there is no second look."""
    asked = resolver({"crm.example": ["127.0.0.1", "127.0.0.2"]})
    sink = opened(WebhookSettings("crm", server.url.replace("127.0.0.1", "crm.example"), allow=("CRM.example.",)))
    assert sink.send([action(1), action(2)]) == [DELIVERED] * 2
    assert asked == ["crm.example"]
    assert {request.headers["host"].partition(":")[0] for request in server.accepted()} == {"crm.example"}


def test_what_is_allowed_is_allowed_by_its_own_name_only(server: Receiver, opened: Open) -> None:
    assert opened(WebhookSettings("crm", server.url, allow=("127.0.0.1",))).send([action(1)]) == [DELIVERED]
    with pytest.raises(ProjectError, match="public addresses only"):
        opened(WebhookSettings("crm", server.url, allow=("127.0.0.2", "localhost")))


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    server: Receiver, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **more: Any) -> list[Any]:
        names = ["127.0.0.3", "127.0.0.1"] if host == "crm.example" else [host]
        return [info for name in names for info in real(name, *arguments, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    sink = opened(WebhookSettings("crm", server.url.replace("127.0.0.1", "crm.example"), allow=("crm.example",)))
    assert sink.send([action(number) for number in range(3)]) == [DELIVERED] * 3


def test_proxies_of_the_environment_are_not_asked(
    server: Receiver, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        settings = WebhookSettings("crm", server.url, allow=("127.0.0.1",))
        assert opened(settings).send([action(1)]) == [DELIVERED]
        assert (len(server.accepted()), len(proxy.accepted())) == (1, 0)
        # A proxy that is asked for gets it, and looks the host up itself.
        asked = replace(settings, url="http://crm.example/x", proxy="${HTTP_PROXY}", allow=())
        assert opened(asked).send([action(2)]) == [DELIVERED]
        assert [request.headers["host"] for request in proxy.accepted()] == ["crm.example"]
        assert len(server.accepted()) == 1


def test_a_password_in_the_address_is_sent_as_one(
    server: Receiver, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_URL", server.url.replace("http://", "http://ola:pa%40ss@"))
    assert opened(WebhookSettings("crm", "${CRM_URL}", allow=("127.0.0.1",))).send([action(1)]) == [DELIVERED]
    assert server.accepted()[0].headers["authorization"] == "Basic b2xhOnBhQHNz"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="it makes a certificate with the command openssl")
def test_a_certificate_is_checked_against_the_name(
    tmp_path: Path,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    resolver: Callable[[dict[str, list[str]]], list[str]],
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=crm.example"]
    named = ["-addext", "subjectAltName=DNS:crm.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made, *named], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    resolver({"crm.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_answer_over_tls, args=(listening, context), daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        for name, code in (("crm.example", "ok"), ("other.example", "unreachable")):
            [outcome] = opened(WebhookSettings("crm", f"https://{name}:{port}/", allow=(name,))).send([action(1)])
            assert outcome.code == code
        thread.join(10)


def _answer_over_tls(listening: socket.socket, context: ssl.SSLContext) -> None:
    """Answer two connections, of which one may not get through its handshake."""
    for _ in range(2):
        connection, _address = listening.accept()
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    received = b""
                    while b'"payload"' not in received:
                        received += secure.recv(65_536)
                    secure.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
            except OSError:
                continue


# --- where files are written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../out.jsonl", "logs/../../out.jsonl", "/tmp/out.jsonl", ".segments/read_plan.json", "a/.segments/x",
        ".git/config", "segments/x.yaml", "feature_repo/x.py", "SEGMENTS/x.yaml", "./.env",
    ],
)  # fmt: skip
def test_a_file_elsewhere_is_refused(path: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_FILE", path)
    for written in (path, "${AUDIT_FILE}"):
        with pytest.raises(ProjectError):
            opened(FileSettings("audit", written))


@pytest.mark.parametrize("target", ["", "..", ".segments", "segments", "feature_repo"])
def test_a_link_to_elsewhere_is_not_followed(target: str, tmp_path: Path) -> None:
    root = tmp_path / "project"
    elsewhere = root / target if target else tmp_path / "elsewhere"
    for folder in (root / "logs", root / ".segments", root / "segments", root / "feature_repo", elsewhere):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "out").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "read_plan.json").write_text("{}")
    (root / "logs" / "a.jsonl").symlink_to(elsewhere / "read_plan.json")
    for path in ("out/read_plan.json", "logs/a.jsonl"):
        [outcome] = open_sink(FileSettings("audit", path), root).send([action(1)])
        assert (outcome.verdict, outcome.code, outcome.is_sick) == (Verdict.RETRY, "outside", True)
    assert (elsewhere / "read_plan.json").read_text() == "{}"


def test_a_link_that_is_put_there_between_two_batches_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    sink = open_sink(FileSettings("audit", "logs/a.jsonl"), root)
    root.mkdir()
    assert sink.send([action(1)]) == [DELIVERED]
    (root / "logs" / "a.jsonl").unlink()
    (root / "logs" / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    assert sink.send([action(2)])[0].code == "outside"
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_inside_the_project_and_a_folder_that_is_allowed_are_written_to(tmp_path: Path) -> None:
    root, log = tmp_path / "project", tmp_path / "log"
    (root / "data").mkdir(parents=True)
    (root / "logs").symlink_to("data")
    assert open_sink(FileSettings("audit", "logs/a.jsonl"), root).send([action(1)]) == [DELIVERED]
    assert (root / "data" / "a.jsonl").exists()
    settings = FileSettings("audit", f"{log}/b.jsonl", allow=(str(log),))
    assert open_sink(settings, root).send([action(1)]) == [DELIVERED]
    assert (log / "b.jsonl").exists()


# --- each action once -----------------------------------------------------------------------------------------------

AUDIT = FileSettings("audit", "a.jsonl")


def numbers(path: Path) -> list[int]:
    return [orjson.loads(line)["payload"]["number"] for line in path.read_bytes().splitlines()]


def couriers(client: Any, tmp_path: Path, now: list[float]) -> tuple[Courier, Courier]:
    """Two workers that serve one sink, by clocks that only a test moves."""
    return tuple(Courier(client, "shop", AUDIT, tmp_path, clock=lambda: now[0]) for _ in range(2))  # type: ignore[return-value]


def test_a_worker_that_slept_past_its_lease_repeats_nothing(client: redis.Redis, tmp_path: Path) -> None:
    """One is suspended between taking a batch and writing it; another serves the sink meanwhile."""
    slow, fast = couriers(client, tmp_path, [0.0])
    enqueue(client, "shop", [action(0, "file:audit")])
    slow.step()  # it has looked at the file, and knows its end
    send = slow._sink.send  # type: ignore[union-attr]

    def suspended(actions: Sequence[Message]) -> Sequence[Outcome]:
        client.delete("segments:{shop}:sink:audit")  # its time ran out
        fast.step()
        enqueue(client, "shop", [action(6, "file:audit")])
        fast.step()
        return send(actions)

    slow._sink.send = suspended  # type: ignore[union-attr,method-assign]
    enqueue(client, "shop", [action(number, "file:audit") for number in range(1, 6)])
    slow.step()
    assert numbers(tmp_path / "a.jsonl") == [0, 1, 2, 3, 4, 5, 6]
    assert fast.waiting() == 0


def test_a_store_that_lost_its_last_second_repeats_nothing(client: redis.Redis, tmp_path: Path) -> None:
    """The worker lives, and what it had taken off the queue is there once more."""
    courier, _ = couriers(client, tmp_path, [0.0])
    for start in range(0, 15, 5):
        enqueue(client, "shop", [action(number, "file:audit") for number in range(start, start + 5)])
        before = client.dump("segments:{shop}:queue:audit")
        courier.step()
    client.restore("segments:{shop}:queue:audit", 0, before, replace=True)  # type: ignore[arg-type]
    client.delete("segments:{shop}:sink:audit")
    courier.release()
    enqueue(client, "shop", [action(15, "file:audit")])
    courier.step()
    assert courier.waiting() == 0
    assert numbers(tmp_path / "a.jsonl") == list(range(16))


def _append(root: str, start: int, number: int) -> None:
    sink = open_sink(AUDIT, Path(root))
    for place in range(start, start + number):
        sink.send([action(place), action(place + 1)])


def test_processes_that_write_one_file_at_once_write_each_action_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(str(tmp_path), start, 150)) for start in (0, 50, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(numbers(tmp_path / "a.jsonl")) == list(range(251))


def test_the_last_line_of_a_file_of_others_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"begun by hand, without an end")
    open_sink(AUDIT, tmp_path).send([action(1)])
    first, second = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert first == b"begun by hand, without an end"
    assert orjson.loads(second)["key"] == "k1"
