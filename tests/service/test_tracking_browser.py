"""Segment's own SDK for browsers, unmodified, in a real browser: its settings and where it reports are the service."""

from __future__ import annotations

from tests.service import shop
from tests.service.browser import needs_browser_and, open_page
from tests.service.conftest import RunningService

pytestmark = needs_browser_and("@segment/analytics-next")

HEAD = "<script src='/@segment/analytics-next/dist/umd/index.js'></script>"

REPORT = """async ([cdnURL, writeKey]) => {
    const analytics = AnalyticsNext.AnalyticsBrowser.load({writeKey, cdnURL});
    await analytics.identify("b1", {age: 33});
    await analytics.page("Home");
    await analytics.track("View", {page: "a"});
    await analytics.track("View", {page: "b"});
}"""


def test_what_the_page_reports_is_known_at_once(service: RunningService) -> None:
    replies: list[tuple[str, int]] = []
    assert service.evaluate("keen", "b1")["value"] is False
    with open_page(HEAD) as page:
        page.on("response", lambda reply: replies.append((reply.url.removeprefix(service.url), reply.status)))
        page.evaluate(REPORT, [service.url, shop.KEYS["track"]])
    assert {(f"/v1/{path}", 200) for path in "itp"} <= set(replies)
    assert all(status == 200 for url, status in replies if url.startswith("/"))
    assert service.evaluate("keen", "b1")["value"] is True
    assert service.evaluate("adults", "b1")["value"] is True
