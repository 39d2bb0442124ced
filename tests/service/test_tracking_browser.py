"""Segment's own SDK for browsers, unmodified, in a real browser: its settings and where it reports are the service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from tests.service import shop
from tests.service.conftest import RunningService

SDK = Path(__file__).parents[1] / "clients" / "node_modules" / "@segment" / "analytics-next" / "dist" / "umd"
CHROMIUM = shutil.which("chromium")

#: A page of the origin that the project's settings allow.
ORIGIN = "https://shop.example"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or not SDK.is_dir(),
    reason="needs chromium, and the packages of tests/clients: `npm ci --prefix tests/clients`",
)

REPORT = """async ([cdnURL, writeKey]) => {
    const analytics = AnalyticsNext.AnalyticsBrowser.load({writeKey, cdnURL});
    await analytics.identify("b1", {age: 33});
    await analytics.page("Home");
    await analytics.track("View", {page: "a"});
    await analytics.track("View", {page: "b"});
}"""


def serve_page(route: Route) -> None:
    """Answer with the page, and with the files of the SDK."""
    path = route.request.url.removeprefix(ORIGIN).lstrip("/")
    if path:
        route.fulfill(path=SDK / path, content_type="text/javascript")
    else:
        route.fulfill(body="<script src='/index.js'></script>", content_type="text/html")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        # The page comes from elsewhere, and the service is on this machine: what browsers ask people about otherwise.
        arguments = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page()
        page.route(f"{ORIGIN}/**", serve_page)
        page.goto(f"{ORIGIN}/")
        yield page
        browser.close()


def test_what_the_page_reports_is_known_at_once(service: RunningService, page: Page) -> None:
    replies: list[tuple[str, int]] = []
    page.on("response", lambda reply: replies.append((reply.url.removeprefix(service.url), reply.status)))
    assert service.evaluate("keen", "b1")["value"] is False
    page.evaluate(REPORT, [service.url, shop.KEYS["track"]])
    assert {(f"/v1/{path}", 200) for path in "itp"} <= set(replies)
    assert all(status == 200 for url, status in replies if url.startswith("/"))
    assert service.evaluate("keen", "b1")["value"] is True
    assert service.evaluate("adults", "b1")["value"] is True
