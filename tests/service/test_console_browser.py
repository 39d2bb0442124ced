"""Look at the console in Chromium: it shows what commands say, to everybody, whatever names and values hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from rules_engine.folders import Project
from tests.commands import good
from tests.service import console_shop
from tests.service.browser import PACKAGES, needs_browser_and, open_browser
from tests.service.conftest import RunningService
from tests.service.console_shop import KEYS_OF_PEOPLE, LONG, MARKUP, TERMINAL, TURNED

pytestmark = needs_browser_and("axe-core")

AXE = (PACKAGES / "axe-core" / "axe.min.js").read_text(encoding="utf-8") if PACKAGES.is_dir() else ""

#: Every page, as an address.
PAGES = ["/console", "/console/segments/keen", "/console/people", "/console/people/ada"]

#: By key, how it is shown.
SHOWN = {MARKUP: "<script>", TERMINAL: "red\\x1b[31mred\\nnext: line", TURNED: "a\\u202eb\\u200bc", LONG: "xxxx"}

#: Milliseconds for what is counted in the background, on a machine that does other things too.
LONG_WAIT = 120_000

#: Opens the console at an address, signed in with the key of a role.
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, console: RunningService) -> Iterator[Visit]:
    """Open pages; the test fails if one of them raised an error, or was refused something by the policy."""
    problems: list[str] = []
    contexts = []

    def open_page(path: str, role: str = "read", width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(f"{console.url}/console/sign-in?to={quote(path, safe='')}")
        page.get_by_label("Key").fill(console_shop.KEYS[role])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"**{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def counted(page: Page) -> Page:
    """The page, once everything on it is counted."""
    page.locator("[data-pending]").first.wait_for(state="detached", timeout=LONG_WAIT)
    return page


def command(project: Project, *arguments: str) -> Any:
    """What a command says, as data."""
    return json.loads(good(*arguments, "--repo", project.root, "--format", "json"))


def test_sizes_are_those_of_evaluate(visit: Visit, console_project: Project) -> None:
    page = counted(visit("/console"))
    said = command(console_project, "evaluate")["segments"]
    for name in ("adults", "keen", "wealthy"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
        cells = row.get_by_role("cell").all_inner_texts()
        assert cells[:2] == [f"{said[name]['users']:,}", f"{said[name]['share']:.1%}"], name
    mobile = page.get_by_role("row").filter(has=page.get_by_role("link", name="mobile", exact=True))
    expect(mobile).to_contain_text("reads what a request brings: device")
    expect(page.get_by_role("row").filter(has_text="People of age")).to_contain_text("1 of 2 fail")


def test_the_table_is_searched_filtered_and_sorted_by_its_address(visit: Visit) -> None:
    page = visit("/console")
    page.keyboard.press("/")
    page.keyboard.type("two pages")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=two+pages**")
    expect(page.get_by_role("row")).to_have_count(2)
    counted(page).get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="Users").click()
    page.wait_for_url("**sort=-size")
    sizes = [int(text) for text in counted(page).locator("tbody td:first-of-type").all_inner_texts() if text.isdigit()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 3


def test_a_segment_over_time_is_that_of_backtest(visit: Visit, console_project: Project) -> None:
    page = counted(visit("/console/segments/adults?every=1h"))
    page.get_by_text("The numbers").click()
    shown = page.get_by_role("region", name="Numbers over time").get_by_role("row").last.get_by_role("cell")
    assert shown.all_inner_texts()[1] == str(command(console_project, "evaluate")["segments"]["adults"]["users"])
    expect(page.get_by_role("img", name=re.compile("Users in adults: 0 at first, 5 at last"))).to_be_visible()
    overlap = command(console_project, "overlap")["pairs"]
    (pair,) = [pair for pair in overlap if {pair["first"], pair["second"]} == {"adults", "wealthy"}]
    both = page.get_by_role("region", name="Table of other segments").get_by_role("row").filter(has_text="wealthy")
    assert both.get_by_role("cell").first.inner_text() == str(pair["both"])


def test_a_person_is_explained_as_the_command_does(visit: Visit, console_project: Project) -> None:
    page = counted(visit("/console/people/bob"))
    said = command(console_project, "explain", "bob", "adults")
    part = page.locator("#why-adults")
    part.locator("summary").click()
    assert said["verdict"] is False
    expect(part.locator("summary")).to_contain_text("not in")
    expect(part).to_contain_text(said["reason"]["condition"])
    expect(part).to_contain_text(said["reason"]["distance"])
    expect(page.get_by_role("row").filter(has_text="profile:age")).to_contain_text("17")
    lookup = command(console_project, "lookup", "bob")
    assert page.locator("summary", has=page.get_by_text("in", exact=True)).count() == len(lookup["segments"]) == 0


def test_another_instant_and_a_context_are_part_of_the_address(visit: Visit) -> None:
    page = visit("/console/people/ada")
    page.get_by_label("At another instant").fill("2060-01-01T00:00:00Z")
    page.get_by_label("Context of a request").fill('{"device": "mobile"}')
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**at=2060-01-01T00**")
    expect(page.locator("#why-mobile summary .verdict")).to_have_text("in")
    expect(page.locator("#why-adults summary .verdict")).to_have_text("unknown")
    expect(page.get_by_role("row").filter(has_text="profile:age")).to_contain_text("expired")


def test_what_somebody_did_and_entered_is_shown(visit: Visit) -> None:
    page = counted(visit("/console/people/ada"))
    expect(page.locator("#events li")).to_have_count(3)
    expect(page.locator("#events li").filter(has_text="purchase")).to_contain_text("12.5")
    expect(page.locator("section", has_text="Entered and left")).to_contain_text("entered keen")
    expect(page.locator("section", has_text="No trigger started")).to_have_count(0)


def test_hostile_keys_and_values_are_shown_as_text(visit: Visit) -> None:
    page = counted(visit("/console/segments/adults"))
    assert page.title() == "adults – shop"
    expect(page.get_by_text('People of age <b>in bold</b> "quoted" <script>').first).to_be_visible()
    assert page.locator("main script, main img, main b:text('in bold')").count() == 0
    for key in KEYS_OF_PEOPLE:
        page = counted(visit(f"/console/people/{quote(key, safe='')}"))
        heading = page.get_by_role("heading", level=1).inner_text()
        assert heading.startswith(
            {MARKUP: "<script>", TERMINAL: "red\\x1b[31m", TURNED: "a\\u202eb\\u200bc", LONG: "xxxx"}[key]
        )
        assert page.locator("main script, main img").count() == 0
        text = page.locator("main").inner_text()
        assert not set(text) & {"\x1b", "\u202e", "\u200b"}
        expect(page.get_by_role("row").filter(has_text="profile:country")).to_contain_text("<img src=x")
    page = visit(f"/console/people/{quote(LONG, safe='')}", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_to_say(visit: Visit, path: str, theme: str) -> None:
    page = counted(visit(path, role="admin", color_scheme=theme, bypass_csp=True))
    for details in page.locator("details").all()[:3]:
        details.locator("summary").click()
    page.add_script_tag(content=AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_a_phone_and_work_without_scripts(visit: Visit, path: str) -> None:
    page = visit(path, width=360, java_script_enabled=False)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    narrow = counted(visit(path, width=360))
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 360


def test_numbers_come_without_scripts_too(visit: Visit) -> None:
    counted(visit("/console"))
    page = visit("/console", java_script_enabled=False)
    page.goto(page.url + "?wait=1")
    expect(page.get_by_role("row").filter(has_text="Looked at two pages")).to_contain_text("2")


def test_the_keyboard_reaches_everything(visit: Visit) -> None:
    page = visit("/console")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("searchbox")).to_be_focused()
