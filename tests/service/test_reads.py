"""Test what can be read of one user and of a segment, against the real service and workers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rules_engine import SegmentClient
from rules_engine.folders import Project
from rules_engine.stream.worker import Worker
from tests.service.conftest import RunningService


def test_the_segments_of_a_user(service: RunningService) -> None:
    content = service.get("/v1/users/ada/segments", "read").json()
    assert content.pop("at")
    assert content == {"entity": "ada", "segments": ["adults", "norwegians"], "changes_at": content["changes_at"]}
    narrowed = service.get("/v1/users/ada/segments?segment=mobile&segment=adults", "read").json()
    assert narrowed["segments"] == ["adults"]
    mobile = service.get("/v1/users/ada/segments", "read", params={"context": '{"device": "mobile"}'}).json()
    assert mobile["segments"] == ["adults", "mobile", "norwegians"]
    expired = service.get("/v1/users/ada/segments", "read", params={"at": "2060-01-01T00:00:00Z"}).json()
    assert (expired["segments"], expired["at"]) == ([], "2060-01-01T00:00:00Z")


def test_a_key_with_slashes_and_blanks_is_one_part_of_the_path(service: RunningService) -> None:
    content = service.get("/v1/users/a%2Fb%20c/segments", "read").json()
    assert (content["entity"], content["segments"]) == ("a/b c", ["adults", "norwegians"])


def test_features_and_an_explanation(service: RunningService) -> None:
    content = service.get("/v1/users/bob/features", "read").json()
    profile = {name: value for name, value in content["features"].items() if name.startswith("profile:")}
    assert profile == {"profile:country": "DE", "profile:age": 17, "profile:spent": 0.0}
    assert content["features"]["events:views_1h"] == 0
    one = service.get("/v1/users/bob/features?feature=profile:age", "read").json()
    assert one == {"entity": "bob", "features": {"profile:age": 17}}
    explained = service.get("/v1/users/bob/explain/adults", "read").json()
    assert explained["verdict"] is False
    assert "is 17; short by 1" in explained["text"]
    assert explained["nearest_miss"][0]["threshold"] == "at_least 18"


def test_history_and_members_as_the_worker_noted_them(service: RunningService, shop_project: Project) -> None:
    Worker(shop_project).run(once=True)  # looks at everybody for the first time
    at = datetime.now(UTC) - timedelta(minutes=1)
    with SegmentClient(shop_project) as client:
        for number in range(2):
            client.track("member", "view", {"page": "a"}, at=at + timedelta(seconds=number), event_id=f"m{number}")
    Worker(shop_project).run(once=True)
    (noted,) = service.get("/v1/users/member/history", "read").json()["history"]
    assert (noted["segment"], noted["change"], noted["entity"]) == ("keen", "enter", "member")
    assert noted["cause"].startswith("event:view:")
    every = service.get("/v1/segments/adults", "read").json()
    assert (every["name"], every["public"], every["next"]) == ("adults", True, None)
    assert every["members"][:2] == ["a/b c", "ada"]  # other tests' users may follow
    assert every["size"] == len(every["members"])
    first = service.get("/v1/segments/adults?limit=1", "read").json()
    assert (first["members"], first["next"], first["size"]) == (["a/b c"], "a/b c", every["size"])
    others = service.get("/v1/segments/adults", "read", params={"after": first["next"]}).json()
    assert (others["members"], others["next"]) == (every["members"][1:], None)


def test_all_segments_are_listed(service: RunningService) -> None:
    content = service.get("/v1/segments", "read").json()
    names = [segment["name"] for segment in content["segments"]]
    assert names == ["adults", "keen", "leaves_soon", "mobile", "norwegians"]
    assert content["segments"][0]["description"] == "People of age"


def test_what_does_not_exist_is_said_with_the_nearest_name(service: RunningService) -> None:
    for path in ("/v1/users/ada/explain/adlts", "/v1/segments/adlts", "/v1/users/ada/segments?segment=adlts"):
        answer = service.get(path, "read")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["hint"] == "did you mean `adults`?"
    feature = service.get("/v1/users/ada/features?feature=profile:aeg", "read")
    assert (feature.status_code, feature.json()["code"]) == (404, "unknown-name")


def test_wrong_parameters_are_refused(service: RunningService) -> None:
    for query in ("at=2026-01-01", "at=x", "context=[]", "context={"):
        assert service.get(f"/v1/users/ada/segments?{query}", "read").status_code == 400
    for limit in ("0", "x", "10001", "-1", "1e3", "9" * 400):
        assert service.get(f"/v1/segments/adults?limit={limit}", "read").status_code == 400


def test_only_keys_that_may_read_read(service: RunningService) -> None:
    for role, status in (("evaluate", 403), ("track", 403), ("read", 200), ("admin", 200)):
        assert service.get("/v1/users/ada/segments", role).status_code == status
    assert service.get("/v1/users/ada/segments").status_code == 401
