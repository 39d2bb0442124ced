"""Post over HTTP to one address: to public addresses only, unless the project allows its host.

httpx's transport is used without its client, which would log addresses, keep cookies and heed the proxies of the
environment. Redirects are answers like any other.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import httpx

from rules_engine.sinks.public_addresses import PrivateAddressError, addresses_of

#: How long the addresses of a host are used before it is looked up anew, in seconds.
_ADDRESSES_LAST = 30.0

_FAILURES = (httpx.ConnectError, httpx.ConnectTimeout)


class PostError(Exception):
    """Raised if there is no answer; ``code`` is a word for metrics. No message holds an address or a header."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Poster:
    """Posts to one address, over connections that stay open between requests.

    Parameters
    ----------
    url
        the address.
    allowed
        the hosts that may have private addresses.
    proxy
        the address of a proxy, which then looks the host up itself; None connects directly.
    timeout
        seconds for one request, from the first look at its host to the end of its answer.
    connections
        how many may be open.
    """

    def __init__(
        self, url: str, allowed: Collection[str], *, proxy: str | None, timeout: float, connections: int
    ) -> None:
        self._url = httpx.URL(url)
        self._host = self._url.raw_host.decode("ascii")
        self._allowed, self._is_direct, self._timeout = frozenset(allowed), proxy is None, timeout
        self._transport = httpx.AsyncHTTPTransport(
            # SSL_CERT_FILE counts, as it says whom to trust; the proxies of the environment, which redirect, do not.
            verify=httpx.create_ssl_context(),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            proxy=proxy,
        )
        self._headers = {"host": self._url.netloc.decode("ascii"), **_authorization(self._url)}
        self._looking_up = asyncio.Lock()
        self._addresses: list[str] = []
        self._looked_up = -float("inf")

    @asynccontextmanager
    async def post(self, body: bytes, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """Send a request, and yield its answer, of which the body is not read yet.

        Raises
        ------
        PostError
            if there is no answer.
        TimeoutError
            if the answer takes too long.
        """
        # httpx limits each step, and a server that sends a byte now and then makes many.
        async with asyncio.timeout(self._timeout):
            answer = await self._send(body, headers)
            try:
                yield answer
            finally:
                await answer.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _send(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        async with self._looking_up:
            addresses = await self._look_up() if self._is_direct else [self._host]
        failure: httpx.TransportError | None = None
        for address in list(addresses):
            try:
                answer = await self._transport.handle_async_request(self._request(address, body, headers))
            except _FAILURES as error:
                failure = error
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.HTTPError as error:
                raise PostError("unreachable", type(error).__name__) from None
            else:
                addresses.sort(key=address.__ne__)  # the one that answered comes first the next time
                return answer
        self._looked_up = -float("inf")
        if isinstance(failure, httpx.ConnectTimeout):
            raise TimeoutError
        raise PostError("unreachable", type(failure).__name__)

    def _request(self, address: str, body: bytes, headers: Mapping[str, str]) -> httpx.Request:
        """Return a request to an address that was checked, with the name for the server and for its certificate."""
        steps = dict.fromkeys(("read", "write", "pool"), self._timeout)
        connect = self._timeout / max(1, len(self._addresses))
        return httpx.Request(
            "POST",
            self._url.copy_with(host=address),
            headers={**self._headers, **headers},
            content=body,
            extensions={"sni_hostname": self._host, "timeout": {**steps, "connect": connect}},
        )

    async def _look_up(self) -> list[str]:
        now = time.monotonic()
        if now - self._looked_up >= _ADDRESSES_LAST:
            port = self._url.port or (443 if self._url.scheme == "https" else 80)
            try:
                self._addresses = await addresses_of(self._host, port, self._allowed)
            except PrivateAddressError:
                message = "its host has no public address; name the host in `allow` if it is meant"
                raise PostError("private-address", message) from None
            except (OSError, UnicodeError):
                raise PostError("unreachable", "its host cannot be looked up") from None
            self._looked_up = now
        return self._addresses


def _authorization(url: httpx.URL) -> Mapping[str, str]:
    """Return the header for the user and the password of an address."""
    if not url.userinfo:
        return {}
    return {"authorization": f"Basic {b64encode(f'{url.username}:{url.password}'.encode()).decode()}"}
