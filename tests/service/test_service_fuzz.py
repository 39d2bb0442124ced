"""Whatever is sent is answered: 2xx, or 4xx with an error in JSON; and the service lives on."""

from __future__ import annotations

import socket
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import RunningService

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

#: Names that the conditions of the shop read, and others.
NAMES = st.sampled_from(["device", "departure", "targetingKey", "", "a.b", "\u0000", "x" * 300])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(
        ["mobile", "2026-01-01T00:00:00Z", "2026-01-01", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"]
    ),
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4))


def check(service: RunningService, path: str, content: bytes) -> None:
    answer = service.post(path, "read", content=content)
    assert answer.status_code < 500, answer.text
    body = answer.json()
    if answer.status_code >= 400:
        assert body.get("errorCode") or body.get("code"), body


def test_contexts_of_every_shape(service: RunningService) -> None:
    @SETTINGS
    @given(st.dictionaries(NAMES, VALUES, max_size=5), st.sampled_from(["/mobile", "/leaves_soon", "/keen", ""]))
    def send(context: dict[str, Any], flag: str) -> None:
        import json

        content = json.dumps({"context": {"targetingKey": "ada", **context}}).encode()
        check(service, f"/ofrep/v1/evaluate/flags{flag}", content)

    send()
    assert service.get("/readyz").status_code == 200


def test_bodies_that_are_no_json(service: RunningService) -> None:
    @SETTINGS
    @given(st.binary(max_size=200) | st.sampled_from([b"[" * 60_000, b'{"a":' * 10_000, b'"\\ud800"', b"\xff\xfe"]))
    def send(content: bytes) -> None:
        check(service, "/ofrep/v1/evaluate/flags/mobile", content)
        check(service, "/get-online-features", content)

    send()
    assert service.get("/readyz").status_code == 200


def test_paths_and_queries_of_every_shape(service: RunningService) -> None:
    text = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='#? \\^`{|}<>"'), max_size=30)

    @SETTINGS
    @given(text, text)
    def send(path: str, query: str) -> None:
        for prefix in ("/v1/users/", "/v1/segments/", "/"):
            answer = service.get(f"{prefix}{path}?{query}", "read")
            assert answer.status_code < 500 or answer.headers["content-type"] == "application/json", answer.text

    send()
    assert service.get("/readyz").status_code == 200


def test_what_is_no_http(service: RunningService) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")

    @SETTINGS
    @given(st.binary(min_size=1, max_size=300))
    def send(content: bytes) -> None:
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(content + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    send()
    assert service.get("/livez").status_code == 200
    assert orjson.loads(service.get("/readyz").content)["status"] == "ready"
