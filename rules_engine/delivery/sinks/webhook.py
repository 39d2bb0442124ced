"""A webhook: one POST for each action, signed as Standard Webhooks describes it.

A request carries ``Idempotency-Key`` and ``webhook-id`` (the action's key, the same on every try),
``webhook-timestamp`` (seconds, of this try) and, with a secret, ``webhook-signature``: ``v1,`` and the base64 of the
HMAC-SHA256 of ``ID.TIMESTAMP.BODY``. A secret ``whsec_...`` is base64; any other is taken as it is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256

import httpx

from rules_engine.delivery.sinks.base import BEHIND, DELIVERED, Outcome, Verdict, expand
from rules_engine.errors import ProjectError
from rules_engine.rules.triggers.nodes import WebhookSettings
from rules_engine.triggers.actions import Action

#: How many requests are under way at once.
CONCURRENT = 16

#: How long a sink may ask to wait, in seconds.
LONGEST_WAIT = 3_600.0

#: How much of an answer is read; the rest of it interests nobody.
_READ = 65_536

#: Refusals that pass: a timeout, a request that came too early, too many requests.
_PASSING = frozenset({408, 425, 429})


class WebhookSink:
    """Posts actions to an address.

    Parameters
    ----------
    settings
        as they are in the project's definitions.

    Raises
    ------
    ProjectError
        if an environment variable is not set, or the address or the secret is none.
    """

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._timeout = settings.timeout / 1_000_000
        self._url = _address(expand(settings.url, settings.name), settings.name)
        self._secret = None if settings.secret is None else _key(expand(settings.secret, settings.name), settings.name)
        headers = {name: expand(value, settings.name) for name, value in settings.headers}
        # Redirects are not followed: an address that was not configured gets nothing.
        self._client = httpx.AsyncClient(
            headers={**headers, "content-type": "application/json", "user-agent": "feast-segments"},
            timeout=self._timeout,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=CONCURRENT, max_keepalive_connections=CONCURRENT),
        )
        self._runner = asyncio.Runner()
        self._is_hurried = False

    def send(self, actions: Sequence[Action]) -> Sequence[Outcome]:
        """Post actions, several at once, and those of one entity one after the other."""
        return self._runner.run(self._send(actions))

    def hurry(self) -> None:
        """Only requests that are under way are waited for."""
        self._is_hurried = True

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()

    async def _send(self, actions: Sequence[Action]) -> list[Outcome]:
        lanes: dict[str, list[int]] = {}
        for place, action in enumerate(actions):
            lanes.setdefault(action.entity, []).append(place)
        outcomes: list[Outcome] = [BEHIND] * len(actions)
        free = asyncio.Semaphore(CONCURRENT)

        async def work(places: Sequence[int]) -> None:
            async with free:
                for place in places:
                    if self._is_hurried:
                        return
                    outcomes[place] = await self._post(actions[place])
                    if outcomes[place].verdict is Verdict.RETRY:
                        return

        await asyncio.gather(*(work(places) for places in lanes.values()))
        return outcomes

    async def _post(self, action: Action) -> Outcome:
        body = action.body()
        headers = {"idempotency-key": action.key, **signed(action.key, body, self._secret, int(time.time()))}
        outcome: Outcome | None = None  # once there is an answer, what comes behind it changes nothing
        try:
            # httpx limits each step, and a server that sends a byte now and then makes many.
            async with asyncio.timeout(self._timeout):
                async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                    outcome = judge(answer.status_code, answer.headers, time.time())
                    await _drain(answer)
        except (TimeoutError, httpx.TimeoutException):
            return outcome or _sick("timeout", f"no answer within {self._timeout:g} s")
        except httpx.HTTPError as error:
            return outcome or _sick("unreachable", f"{type(error).__name__}: {error}")
        return outcome


async def _drain(answer: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again."""
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > _READ:
            return


def signed(key: str, body: bytes, secret: bytes | None, now: int) -> Mapping[str, str]:
    """The headers that say which action it is, and that it is ours.

    >>> signed("k1", b"{}", b"secret", 1_700_000_000)["webhook-signature"]
    'v1,p9kWRf9n4Kezjayb53HKIw6/kCzP5ZS4azXv7xsgzkY='
    """
    headers = {"webhook-id": key, "webhook-timestamp": str(now)}
    if secret is None:
        return headers
    digest = hmac.new(secret, f"{key}.{now}.".encode() + body, sha256).digest()
    return {**headers, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def judge(status: int, headers: Mapping[str, str], now: float) -> Outcome:
    """What an answer means.

    >>> judge(204, {}, 0).verdict.value, judge(404, {}, 0).verdict.value
    ('delivered', 'refused')
    >>> judge(429, {"retry-after": "30"}, 0).retry_after
    30.0
    """
    if 200 <= status < 300:
        return DELIVERED
    code, message = f"http-{status}", f"the answer is {status}"
    if 300 <= status < 400:
        return Outcome(Verdict.REFUSED, code, f"{message}, a redirect; redirects are not followed")
    if status >= 500 or status in _PASSING:
        return Outcome(Verdict.RETRY, code, message, _retry_after(headers.get("retry-after"), now), is_sick=True)
    return Outcome(Verdict.REFUSED, code, message)


def _retry_after(text: str | None, now: float) -> float | None:
    """The seconds that an answer asks to wait, given as a number or as an instant."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            instant = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() - now
    return min(max(0.0, seconds), LONGEST_WAIT) if math.isfinite(seconds) else None


def _sick(code: str, message: str) -> Outcome:
    return Outcome(Verdict.RETRY, code, message, is_sick=True)


def _address(text: str, sink: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ProjectError(f"the address of the sink `{sink}` is none: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        hint = "it begins with https://, also when it comes from the environment"
        raise ProjectError(f"the address of the sink `{sink}` is not that of a webhook", hint=hint)
    return url


def _key(secret: str, sink: str) -> bytes:
    if not secret:
        raise ProjectError(f"the secret of the sink `{sink}` is empty", hint="set its environment variable")
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        hint = "after `whsec_` there stands base64"
        raise ProjectError(f"the secret of the sink `{sink}` cannot be read", hint=hint) from None
