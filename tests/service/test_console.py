"""Test who may look at the console, and what its pages are sent with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hatchling.builders.wheel import WheelBuilder

from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.service.console.background import Background
from rules_engine.service.console.routes import routes
from rules_engine.service.console.sessions import COOKIE
from rules_engine.service.console.trying import try_change
from tests.docs_pages import ROOT
from tests.service import console_shop
from tests.service.conftest import MakeService, RunningService

pytestmark = pytest.mark.usefixtures("console_environment")

PAGES = ("/console", "/console/segments/adults", "/console/people", "/console/people/ada")


@pytest.fixture
def visitor(console: RunningService) -> Iterator[httpx.Client]:
    """A browser's client without a cookie."""
    with httpx.Client(base_url=console.url, timeout=60, trust_env=False) as client:
        yield client


def sign_in(visitor: httpx.Client, role: str, **fields: str) -> httpx.Response:
    return visitor.post("/console/sign-in", data={"key": console_shop.KEYS[role], **fields})


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def token(page: str) -> str:
    """The token that the forms of a page carry."""
    match = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in(visitor: httpx.Client, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/sign-in?to={quote(path, safe='')}")


def test_signing_in_leads_to_the_page_that_was_asked_for(visitor: httpx.Client) -> None:
    answer = sign_in(visitor, "read", to="/console/people/ada?at=2026-01-01T00:00:00Z")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/people/ada?at=2026-01-01T00:00:00Z")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=Lax", "Path=/console"} <= set(cookie.split("; "))
    assert console_shop.KEYS["read"] not in cookie
    assert "ada" in visitor.get("/console/people/ada").text


@pytest.mark.parametrize(
    "to", ["//elsewhere.example/console", "https://elsewhere.example", "/v1/segments", "/console\\x"]
)
def test_signing_in_leads_nowhere_else(visitor: httpx.Client, to: str) -> None:
    assert sign_in(visitor, "read", to=to).headers["location"] == "/console"


def test_keys_for_programs_do_not_open_it(visitor: httpx.Client) -> None:
    wrong = visitor.post("/console/sign-in", data={"key": "a-key-that-nobody-has"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert "This key is not known." in wrong.text
    for role in ("evaluate", "track"):
        refused = sign_in(visitor, role)
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)


def test_a_cookie_that_was_changed_or_ran_out_is_none(visitor: httpx.Client) -> None:
    sign_in(visitor, "read")
    value = visitor.cookies[COOKIE]
    expires, nonce, signature = value.split(".")
    for other in (
        f"{int(expires) + 1}.{nonce}.{signature}",
        f"{expires}.{nonce}.{'0' * 64}",
        f"1.{nonce}.{signature}",
        "x",
    ):
        answer = httpx.get(f"{visitor.base_url}/console", headers={"cookie": f"{COOKIE}={other}"}, trust_env=False)
        assert answer.status_code == 303, other


def test_signing_out_needs_the_token_of_the_session(visitor: httpx.Client) -> None:
    sign_in(visitor, "read")
    form = token(visitor.get("/console").text)
    assert visitor.post("/console/sign-out", data={"token": "0" * 64}).status_code == 403
    assert visitor.get("/console").status_code == 200
    assert visitor.post("/console/sign-out", data={"token": form}).status_code == 303
    assert visitor.get("/console").status_code == 303


def test_forms_of_other_sites_are_refused(visitor: httpx.Client) -> None:
    sign_in(visitor, "read")
    form = {"token": token(visitor.get("/console").text)}
    for headers in ({"origin": "https://elsewhere.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        assert visitor.post("/console/sign-out", data=form, headers=headers).status_code == 403, headers
    own = {"origin": str(visitor.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert visitor.post("/console/sign-out", data=form, headers=own).status_code == 303


def test_a_key_of_the_role_console_shows_no_people(visitor: httpx.Client) -> None:
    sign_in(visitor, "console")
    person = visitor.get("/console/people/ada")
    assert person.status_code == 403
    assert "your key does not show single people" in person.text
    assert "does not show single people" in visitor.get("/console/people?key=ada").text
    page = visitor.get("/console/segments/keen?wait=1").text
    assert "Your key does not show single people" in page
    assert "hidden" in page
    assert "ada" not in page
    sign_in(visitor, "read")
    assert 'href="/console/people/ada"' in visitor.get("/console/segments/keen?wait=1").text


@pytest.mark.parametrize("path", [*PAGES, "/console/sign-in", "/console/nowhere", "/console/segments/nothing"])
def test_pages_bring_nothing_inline_and_load_nothing_from_elsewhere(visitor: httpx.Client, path: str) -> None:
    if path != "/console/sign-in":
        sign_in(visitor, "read")
    answer = visitor.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    for tag, attributes in Elements(answer.text).elements:
        assert tag != "style"
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/console/static/")
        for name in ("src", "href", "action"):
            assert not re.match(r"[a-z]+:|//", attributes.get(name) or ""), attributes


def test_files_that_pages_load_may_be_kept(visitor: httpx.Client) -> None:
    for address in set(re.findall(r'"(/console/static/[^"]+)"', visitor.get("/console/sign-in").text)):
        answer = visitor.get(address)
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    assert visitor.get("/console/static/..%2Froutes.py").status_code == 404


def test_addresses_that_are_none_are_pages_that_say_so(visitor: httpx.Client) -> None:
    sign_in(visitor, "read")
    nothing = visitor.get("/console/segments/adlts")
    assert nothing.status_code == 404
    assert "did you mean `adults`?" in nothing.text
    wrong = visitor.get("/console/people/ada?at=yesterday")
    assert wrong.status_code == 400
    assert "write e.g. 2026-01-31T09:00:00Z" in wrong.text
    assert visitor.get("/console/people/ada?context=1").status_code == 400
    assert visitor.get("/console/").headers["location"] == "/console"


def test_dev_needs_no_key_and_answers_this_machine_only(make_service: MakeService, console_project: Project) -> None:
    service = make_service(console_project, "--dev", env={})
    page = service.get("/console")
    assert page.status_code == 200
    assert "set-cookie" in page.headers
    elsewhere = service.get("/console", headers={"host": "rebound.example"})
    assert (elsewhere.status_code, "this machine only" in elsewhere.text) == (403, True)


def test_several_processes_know_one_session(make_service: MakeService, console_project: Project) -> None:
    service = make_service(console_project, "--workers", "2", env=console_shop.ENVIRONMENT)
    service.sign_in("read")
    assert {service.get("/console/people").status_code for _ in range(20)} == {200}


def test_a_container_with_the_plan_alone_says_what_it_cannot_show(
    make_service: MakeService, forgetful: Project
) -> None:
    for folder in (forgetful.feature_repo, forgetful.segments_dir):
        shutil.rmtree(folder)
    service = make_service(forgetful)
    service.sign_in("read")
    page = service.get("/console?wait=1")
    assert page.status_code == 200
    assert "feature_repo" in page.text
    assert "People of age" in page.text


def test_every_page_but_those_for_signing_in_needs_a_key() -> None:
    free = {"/console/sign-in", "/console/static/{name}", "/console/{rest:path}"}
    assert {route.path for route in routes(Background())} > free


def test_the_wheel_has_the_templates_and_the_files_that_pages_load() -> None:
    folder = ROOT / "rules_engine/service/console"
    needed = {
        path.relative_to(ROOT).as_posix() for part in ("templates", "static") for path in (folder / part).iterdir()
    }
    shipped = {Path(file.distribution_path).as_posix() for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert len(needed) >= 10
    assert needed - shipped == set()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("profile:age, at_least: 18", "profile:age, at_least: 17"),
        ("within: 1h, count: {at_least: 2}", "within: 1h, count: {at_least: 1}"),
        ("within: 1h, count: {at_least: 2}", "within: 1h, count: {at_least: 3}"),
        ("context: device, equals: mobile", "feature: profile:country, exists: false"),
    ],
)
def test_a_sample_of_all_users_answers_as_all_users_do(console_project: Project, old: str, new: str) -> None:
    file = "segments/a.yaml"
    before = (console_project.root / file).read_text(encoding="utf-8")
    assert old in before
    version = ReadPlan.load(console_project.read_plan).definitions_version
    arguments = console_project.root, version, file, before.replace(old, new)
    sampled, everybody = (try_change(*arguments, each) for each in (False, True))
    assert not sampled.is_sample
    numbers = [
        [(move.segment, move.kind, move.enters, move.leaves, move.stays) for move in outcome.movements]
        for outcome in (sampled, everybody)
    ]
    assert numbers[0] == numbers[1] != []
    assert sampled.patch.count("\n+") == 2  # the name of the file, and the line
