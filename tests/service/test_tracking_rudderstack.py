"""RudderStack's own SDK for browsers, unmodified, in a real browser: the service is its data plane."""

from __future__ import annotations

from tests.service import shop
from tests.service.browser import needs_browser_and, open_page
from tests.service.conftest import RunningService

pytestmark = needs_browser_and("@rudderstack/analytics-js")

HEAD = "<script src='/@rudderstack/analytics-js/dist/npm/modern/bundled/umd/index.js'></script>"

REPORT = """([dataPlane, key]) => {
    const names = {id: "shop", name: "shop", workspaceId: "shop"};
    const source = {...names, writeKey: key, enabled: true, config: {}, destinations: []};
    const analytics = new rudderanalytics.RudderAnalytics();
    analytics.load(key, dataPlane, {getSourceConfig: () => ({source})});
    analytics.identify("r1", {age: 33});
    analytics.page("Home");
    analytics.track("View", {page: "a"});
    analytics.track("View", {page: "b"});
}"""

ANSWERED = "url => performance.getEntriesByType('resource').filter(entry => entry.name.startsWith(url)).length == 4"


def test_what_the_page_reports_is_known_at_once(service: RunningService) -> None:
    assert service.evaluate("keen", "r1")["value"] is False
    replies: list[tuple[str, int]] = []
    with open_page(HEAD) as page:
        page.on("response", lambda reply: replies.append((reply.url, reply.status)))
        page.evaluate(REPORT, [service.url, shop.KEYS["track"]])
        page.wait_for_function(ANSWERED, arg=service.url)
    assert set(replies) == {(f"{service.url}/v1/{kind}", 200) for kind in ("identify", "page", "track")}
    assert service.evaluate("keen", "r1")["value"] is True
    assert service.evaluate("adults", "r1")["value"] is True
