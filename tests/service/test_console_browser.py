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

pytestmark = [needs_browser_and("axe-core"), pytest.mark.usefixtures("console_environment")]

AXE = (PACKAGES / "axe-core" / "axe.min.js").read_text(encoding="utf-8") if PACKAGES.is_dir() else ""

#: Every page, as an address.
PAGES = [
    "/console",
    "/console/segments/keen",
    "/console/people",
    "/console/people/ada",
    "/console/change?segment=adults",
    "/console/triggers",
    "/console/models",
    "/console/operation",
]

#: By key, how it is shown.
SHOWN = {MARKUP: "<script>", TERMINAL: "red\\x1b[31mred\\nnext: line", TURNED: "a\\u202eb\\u200bc", LONG: "xxxx"}

#: Milliseconds for what is counted in the background, on a machine that does other things too.
LONG_WAIT = 120_000

#: Opens the console at an address, signed in with the key of a role.
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=LONG_WAIT)  # a busy machine is no failure
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, console: RunningService) -> Iterator[Visit]:
    """Open pages; the test fails if one of them raised an error, or was refused something by the policy."""
    problems: list[str] = []
    contexts = []

    def open_page(path: str, role: str = "read", width: int = 1280, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        context.set_default_timeout(LONG_WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Security Policy" in message.text else None)
        page.goto(f"{console.url}/console/sign-in?to={quote(path, safe='')}")
        page.get_by_label("Key").fill(console_shop.KEYS[role])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/console/sign-in" not in url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def counted(page: Page) -> Page:
    """The page, once everything on it is counted."""
    page.locator("[data-pending]").first.wait_for(state="detached", timeout=LONG_WAIT)
    return page


def answered(page: Page) -> Page:
    """The page, once it says what a change would do."""
    page.locator("[data-more]").first.wait_for(state="detached", timeout=LONG_WAIT)
    return page


def command(project: Project, *arguments: str) -> Any:
    """Return what a command says, as data."""
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


def test_a_moved_threshold_says_what_plan_says(visit: Visit, console_project: Project) -> None:
    page = answered(visit("/console/change?segment=adults"))
    expect(page.locator("#answer")).to_contain_text("nobody moves")
    page.get_by_label("profile:age at_least", exact=True).fill("17")
    moved = page.locator(".movement[data-segment=adults]")
    moved.wait_for()
    enter, leave, stay = moved.locator("dd").all_inner_texts()
    text = page.locator("textarea").input_value()
    assert "at_least: 17" in text
    file = console_project.segments_dir / "a.yaml"
    before = file.read_text(encoding="utf-8")
    assert text.replace("at_least: 17", "at_least: 18") == before
    try:
        file.write_text(text, encoding="utf-8")
        said = {each["segment"]: each for each in command(console_project, "plan")["segments"]}
    finally:
        file.write_text(before, encoding="utf-8")
    adults = said["adults"]
    assert (
        [enter, leave, stay] == [str(adults["enters"]), str(adults["leaves"]), str(adults["stays"])] == ["1", "0", "5"]
    )
    assert said.keys() == {"adults", "wealthy"}
    moved.locator("summary").click()
    expect(moved).to_contain_text("profile:age at_least 17")
    page.get_by_text("The patch", exact=True).click()
    expect(page.locator("#patch")).to_contain_text("+when: {feature: profile:age, at_least: 17}")


def test_problems_are_shown_at_their_place_while_somebody_types(visit: Visit) -> None:
    page = answered(visit("/console/change?segment=keen"))
    field = page.locator("textarea")
    field.fill(field.input_value().replace("profile:spent", "profile:spend"))
    problem = page.locator(".diagnostic")
    expect(problem).to_contain_text("segments/a.yaml:27:46")
    expect(problem).to_contain_text("did you mean `profile:spent`?")
    assert problem.locator("pre").inner_text().splitlines()[1].index("^") == 45


def test_a_new_segment_can_be_tried(visit: Visit) -> None:
    page = visit("/console/change")
    page.get_by_label("File", exact=True).fill("segments/teens.yaml")
    page.locator("textarea").fill("segment: teens\nwhen: {feature: profile:age, less_than: 18}\n")
    expect(page.locator(".movement[data-segment=teens] dd").first).to_have_text("1", timeout=LONG_WAIT)
    page.get_by_label("File", exact=True).fill("../outside.yaml")
    expect(page.locator("#answer")).to_contain_text("the file is none of segments/")


def test_a_change_is_tried_without_scripts(visit: Visit) -> None:
    page = visit("/console/change?segment=adults", java_script_enabled=False)
    page.get_by_label("profile:age at_least", exact=True).fill("17")
    page.get_by_role("button", name="Show what it does").click()
    expect(page.locator(".movement[data-segment=adults] dd").first).to_have_text("1")
    assert "at_least: 17" in page.locator("textarea").input_value()


def test_examples_of_a_change_name_nobody_to_a_key_that_sees_no_people(visit: Visit) -> None:
    page = answered(visit("/console/change?segment=adults", role="console"))
    page.get_by_label("profile:age at_least", exact=True).fill("17")
    expect(page.locator(".movement[data-segment=adults]")).to_contain_text("does not show single people")
    expect(page.get_by_text("bob")).to_have_count(0)


def test_triggers_are_those_of_the_command(visit: Visit, console_project: Project) -> None:
    page = visit("/console/triggers")
    said = command(console_project, "triggers", "--limit", "1000")
    for name in ("greet", "thank", "held"):
        row = page.get_by_role("region", name="Table of triggers").get_by_role("row").filter(has_text=name)
        shown = [int(text) for text in row.get_by_role("cell").all_inner_texts()[1:5]]
        states = [each["state"] for each in said if each["trigger"] == name]
        assert shown == [states.count(state) for state in ("fired", "pending", "suppressed", "cancelled")]
        assert sum(shown) == 2
    expect(page.get_by_role("row").filter(has_text="held").first).to_contain_text("condition 2")
    page.get_by_label("State").select_option("pending")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("region", name="Table of instances").locator("tbody tr")).to_have_count(2)


def test_a_failing_sink_and_its_actions_are_shown_to_all_and_sent_again_by_admins(
    visit: Visit, console_project: Project
) -> None:
    page = visit("/console/triggers")
    said = command(console_project, "triggers", "dead-letters")
    letters = page.get_by_role("region", name="Table of undelivered actions").locator("tbody tr")
    expect(letters).to_have_count(said["total"])
    expect(letters.first).to_contain_text(said["actions"][0]["code"])
    sinks = page.get_by_role("region", name="Table of sinks").get_by_role("row")
    expect(sinks.filter(has_text="webhook:crm")).to_contain_text("actions given up")
    expect(page.get_by_role("button", name="Send again")).to_have_count(0)
    admin = visit("/console/triggers", role="admin")
    admin.get_by_role("button", name="Send again").first.click()
    expect(admin.get_by_role("status")).to_contain_text("1 put into their queues again")
    assert command(console_project, "triggers", "dead-letters")["total"] == said["total"] - 1
    waiting = admin.get_by_role("region", name="Table of sinks").get_by_role("row").filter(has_text="webhook:crm")
    assert waiting.get_by_role("cell").all_inner_texts()[1:3] == ["1", str(said["total"] - 1)]


def test_operation_shows_what_the_store_and_the_versions_say(visit: Visit, console_project: Project) -> None:
    page = counted(visit("/console/operation"))
    refused = command(console_project, "ingest", "--dead-letters")
    row = page.get_by_role("region", name="Table of refused events").locator("tbody tr")
    expect(row).to_have_count(refused["total"])
    expect(row).to_contain_text(refused["events"][0]["code"])
    expect(row).to_contain_text("<script>")
    facts = page.locator("#live dl")
    expect(facts).to_contain_text(re.compile(r"Refused events\s*1"))
    expect(page.get_by_role("region", name="Table of versions")).to_contain_text("adults added")
    expect(page.locator("#pending")).to_contain_text("Nothing differs")
    hidden = visit("/console/operation", role="console")
    expect(hidden.get_by_role("region", name="Table of refused events")).to_contain_text("hidden")
    assert hidden.get_by_text("<script>").count() == 0


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
    chosen = visit("/console")
    chosen.get_by_label("Owner").select_option(index=1)
    chosen.get_by_role("button", name="Filter").click()
    expect(chosen.locator("tbody tr")).to_have_count(1)
    page = visit(f"/console/people/{quote(LONG, safe='')}", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_has_nothing_to_say(visit: Visit, path: str, theme: str) -> None:
    page = answered(counted(visit(path, role="admin", color_scheme=theme, bypass_csp=True)))
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
