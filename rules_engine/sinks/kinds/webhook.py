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
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from rules_engine.sinks.base import BEHIND, DELIVERED, Message, Outcome, Sink, Verdict
from rules_engine.sinks.public_addresses import is_allowed, is_private_host, literal_address, normal_host
from rules_engine.sinks.settings import (
    TIMEOUT,
    SettingError,
    SinkSettings,
    SinkWarning,
    text,
    texts,
    timeout,
    words,
)
from rules_engine.sinks.variables import SECRET_NAME, VARIABLE

if TYPE_CHECKING:
    import httpx

#: How many requests are under way at once.
CONCURRENT = 16

#: How long a sink may ask to wait, in seconds.
LONGEST_WAIT = 3_600.0

#: How much of an answer is read; the rest of it interests nobody.
_READ = 65_536

#: Refusals that pass: a timeout, a request that came too early, too many requests.
_PASSING = frozenset({408, 425, 429})


#: The headers that a webhook sets itself.
OWN_HEADERS = frozenset(
    {
        "connection", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "user-agent",
        "webhook-id", "webhook-signature", "webhook-timestamp",
    }
)  # fmt: skip

_HOST = re.compile(r"[\w.:\[\]%-]{1,253}\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")


def _check_url(url: str) -> None:
    if VARIABLE.match(url):
        return
    try:
        parts = urlsplit(VARIABLE.sub("x", url))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise SettingError(f"`{url}` is no address: {error}", code="invalid-url") from None
    if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
        hint = "write e.g. `https://crm.example/actions`"
        raise SettingError(f"`{url}` is not the address of a webhook", hint, code="invalid-url")
    spelt_out = urlsplit(VARIABLE.sub("", url))
    userinfo = spelt_out.netloc.rpartition("@")[0].strip(":")
    if userinfo or any(SECRET_NAME.search(name) for name, _ in parse_qsl(spelt_out.query)):
        hint = "write `${CRM_URL}`, and set the environment variable"
        message = "the address holds a secret that is spelt out, and whoever reads this file would know it"
        raise SettingError(message, hint, code="literal-secret")


def _check_secret(secret: str) -> None:
    _check_ascii(secret)
    if secret.startswith("whsec_"):
        try:
            base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise SettingError("the secret cannot be read", "after `whsec_` there stands base64") from None


def _check_header(name: str, value: str) -> None:
    if not _HEADER.match(name):
        raise SettingError(f"`{name}` cannot be the name of a header", code="invalid-name", at_key=True)
    if name.lower() in OWN_HEADERS:
        message = f"the webhook sets `{name}` itself"
        raise SettingError(message, "remove it", code="option-not-allowed", at_key=True)
    _check_ascii(value)


def _check_ascii(value: str) -> None:
    if not value.isprintable() or not value.isascii():
        hint = "look for letters with accents, line breaks and characters that cannot be seen"
        raise SettingError("it may hold printable ASCII characters only", hint, code="literal-type")


def _check_host(host: str) -> None:
    if not _HOST.match(host):
        hint = "write the name or the address of one host, as it is in the address of the webhook"
        raise SettingError(f"`{host}` names no host", hint, code="invalid-address")


def _check_proxy(proxy: str) -> None:
    if VARIABLE.search(proxy):
        return
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        hint = "write e.g. `http://proxy.example:3128`, or `${HTTPS_PROXY}`"
        raise SettingError("this is not the address of a proxy", hint, code="invalid-url")


@dataclass(frozen=True)
class WebhookSettings(SinkSettings):
    """An HTTP address: each action is posted to it."""

    url: str = field(
        metadata=text(
            "The address, e.g. https://crm.example/actions.",
            expected="an address, e.g. `https://crm.example/actions`",
            check=_check_url,
        )
    )
    secret: str | None = field(
        default=None,
        metadata=text(
            "What requests are signed with: ${VARIABLE}.",
            expected="a secret, `${VARIABLE}`",
            check=_check_secret,
            is_secret=True,
        ),
    )
    headers: tuple[tuple[str, str], ...] = field(
        default=(), metadata=texts("Headers of every request; a token is a ${VARIABLE}.", check=_check_header)
    )
    timeout: int = field(default=TIMEOUT, metadata=timeout())
    allow: tuple[str, ...] = field(
        default=(),
        metadata=words(
            "Hosts that may have private addresses, such as 10.0.0.8 or crm.internal.",
            expected="the name or the address of a host",
            check=_check_host,
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=text(
            "A proxy for the requests, e.g. ${HTTPS_PROXY}; proxies of the environment are not used by themselves.",
            expected="the address of a proxy, e.g. `http://proxy.example:3128`",
            check=_check_proxy,
        ),
    )

    def check(self) -> None:
        """Refuse an address that is plainly not public; a name is looked at when it is looked up."""
        host = _host(self.url)
        if host is not None and is_private_host(host) and not is_allowed(host, self.allow):
            message = "actions go to public addresses only, and this one is of this machine or of a private network"
            raise SettingError(message, "if it is meant, name its host: `allow: [HOST]`", code="private-address")

    def warnings(self) -> Iterator[SinkWarning]:
        """Warn of an address to which actions would go unencrypted."""
        host = _host(self.url)
        if self.url.startswith("http://") and host is not None and not _is_loopback(host):
            message = f"actions would go to `{self.name}` over the network unencrypted"
            yield SinkWarning("insecure-url", message, "write `https://`")


class WebhookSink(Sink, kind="webhook", settings=WebhookSettings):
    """Posts actions to an address.

    Parameters
    ----------
    settings
        with the values of variables.
    root
        the project's folder.
    """

    def __init__(self, settings: WebhookSettings, _root: Path) -> None:
        from rules_engine.sinks.http_post import Poster

        self._timeout = settings.timeout / 1_000_000
        self._secret = None if settings.secret is None else _key(settings.secret)
        self._headers = {
            **dict(settings.headers),
            "accept": "*/*",
            "content-type": "application/json",
            "user-agent": "feast-segments",
        }
        self._poster = Poster(
            settings.url, settings.allow, proxy=settings.proxy, timeout=self._timeout, connections=CONCURRENT
        )
        self._runner = asyncio.Runner()
        self._is_hurried = False

    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        """Post actions, several at once, and those of one entity one after the other."""
        return self._runner.run(self._send(actions))

    def hurry(self) -> None:
        """Stop waiting for anything but the requests that are under way."""
        self._is_hurried = True

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._poster.close())
        self._runner.close()

    async def _send(self, actions: Sequence[Message]) -> list[Outcome]:
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

    async def _post(self, action: Message) -> Outcome:
        from rules_engine.sinks.http_post import PostError

        body = action.body()
        signature = signed(action.key, body, self._secret, int(time.time()))
        headers = {**self._headers, "idempotency-key": action.key, **signature}
        outcome: Outcome | None = None  # once there is an answer, a failure while its body is read changes nothing
        try:
            async with self._poster.post(body, headers) as answer:
                outcome = outcome_of(answer.status_code, answer.headers, time.time())
                await _drain(answer)
        except TimeoutError:
            return outcome or _sick("timeout", f"no answer within {self._timeout:g} s")
        except PostError as error:
            return outcome or _sick(error.code, str(error))
        return outcome


async def _drain(answer: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again."""
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > _READ:
            return


def signed(key: str, body: bytes, secret: bytes | None, now: int) -> Mapping[str, str]:
    """Return the headers that say which action it is, and that it is ours.

    >>> signed("k1", b"{}", b"secret", 1_700_000_000)["webhook-signature"]
    'v1,p9kWRf9n4Kezjayb53HKIw6/kCzP5ZS4azXv7xsgzkY='
    """
    headers = {"webhook-id": key, "webhook-timestamp": str(now)}
    if secret is None:
        return headers
    digest = hmac.new(secret, f"{key}.{now}.".encode() + body, sha256).digest()
    return {**headers, "webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def outcome_of(status: int, headers: Mapping[str, str], now: float) -> Outcome:
    """Return what an answer means.

    >>> outcome_of(204, {}, 0).verdict.value, outcome_of(404, {}, 0).verdict.value
    ('delivered', 'refused')
    >>> outcome_of(429, {"retry-after": "30"}, 0).retry_after
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
    """Return the seconds that an answer asks to wait, given as a number or as an instant."""
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


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    return secret.encode() if encoded == secret else base64.b64decode(encoded, validate=True)


def _host(url: str) -> str | None:
    """Return the host of an address; None if a variable decides it."""
    host = urlsplit(url).hostname
    return None if host is None or "$" in host else host


def _is_loopback(host: str) -> bool:
    address = literal_address(normal_host(host))
    return address.is_loopback if address is not None else is_private_host(host)
