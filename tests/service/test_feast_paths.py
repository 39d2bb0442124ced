"""Feast's two paths answer as Feast does, and what is pushed starts transitions."""

from __future__ import annotations

from datetime import UTC, datetime

from rules_engine.folders import Project
from rules_engine.stream.worker import Worker
from tests.service.conftest import RunningService


def test_features_are_those_of_feast(service: RunningService) -> None:
    asked = {"features": ["profile:country", "profile:age"], "entities": {"user_id": ["ada", "cyd", "nobody"]}}
    answer = service.post("/get-online-features", "read", json=asked)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    names = content["metadata"]["feature_names"]
    columns = dict(zip(names, content["results"], strict=True))
    assert columns["user_id"]["values"] == ["ada", "cyd", "nobody"]
    assert columns["country"]["values"] == ["NO", None, None]
    assert columns["age"]["values"] == [36, None, None]
    assert columns["age"]["statuses"][0] == "PRESENT"


def test_what_is_pushed_is_read_at_once_and_starts_a_transition(service: RunningService, shop_project: Project) -> None:
    Worker(shop_project).run(once=True)  # looks at everybody once, so that later changes are transitions
    row = {"user_id": ["pushed"], "country": ["NO"], "age": [40], "spent": [1.5]}
    at = {"event_timestamp": [datetime.now(UTC).isoformat()]}
    answer = service.post("/push", "admin", json={"push_source_name": "profile_push", "df": row | at})
    assert (answer.status_code, answer.json()) == (200, {"status": "pushed"})
    assert service.evaluate("adults", "pushed")["value"] is True
    Worker(shop_project).run(once=True)
    history = service.get("/v1/users/pushed/history", "read").json()["history"]
    assert sorted((step["segment"], step["change"], step["cause"]) for step in history) == [
        ("adults", "enter", "push"),
        ("norwegians", "enter", "push"),
    ]


def test_what_feast_refuses_is_a_problem(service: RunningService) -> None:
    for body, status in (
        ({"features": ["profile:absent"], "entities": {"user_id": ["ada"]}}, (400, 404, 422)),
        ({"features": ["absent:age"], "entities": {"user_id": ["ada"]}}, (400, 404, 422)),
        ({"features": ["profile:age"], "entities": {"person": ["ada"]}}, (400, 404, 422)),
        ({"features": "profile:age", "entities": {"user_id": ["ada"]}}, (400,)),
        ({"entities": {"user_id": ["ada"]}}, (400,)),
        ({"features": ["profile:age"], "entities": {"user_id": "ada"}}, (400,)),
    ):
        answer = service.post("/get-online-features", "read", json=body)
        assert answer.status_code in status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    for body in (
        {},
        {"push_source_name": "absent", "df": {}},
        {"push_source_name": "profile_push", "df": {"user_id": ["a"], "event_timestamp": ["soon"]}},
        {"push_source_name": "profile_push", "df": {"user_id": ["a"], "age": [1, 2]}},
    ):
        answer = service.post("/push", "admin", json=body)
        assert 400 <= answer.status_code < 500, answer.text
    assert service.post("/push", "read", json={}).status_code == 403
