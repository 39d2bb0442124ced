"""Sign people in: a cookie that the key of the service signed, and tokens that tell our own forms from others'.

A cookie is ``EXPIRES.NONCE.SIGNATURE``. It is signed with the key that signed in, so every process knows it, nothing is
kept, and it ends with the key.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from rules_engine.service.keys import DEVELOPER, Key, KeyRing, sign

#: The name of the cookie.
COOKIE = "segments_console"

#: Seconds after which people sign in anew.
LIFETIME = 12 * 3600

_NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """Somebody who is signed in: the key, and the cookie's value."""

    key: Key
    cookie: str

    @property
    def form_token(self) -> str:
        """Return the token that forms carry, which another site cannot know."""
        return hmac.digest(self.cookie.encode(), b"form", "sha256").hex()

    def owns(self, token: str) -> bool:
        """Say whether a form's token is this session's."""
        return hmac.compare_digest(self.form_token.encode(), token.encode("utf-8", "surrogatepass"))


def new_cookie(secret: str) -> str:
    """Return the value of the cookie of somebody who signs in with a key."""
    text = f"{int(time.time()) + LIFETIME}.{secrets.token_hex(_NONCE_BYTES)}"
    return f"{text}.{sign(secret, _message(text)).hex()}"


def find_session(ring: KeyRing | None, cookie: str | None) -> ConsoleSession | None:
    """Return the session of a cookie.

    Parameters
    ----------
    ring
        the keys of the service; None with ``--dev``, where everybody is signed in.
    cookie
        its value, if the request brought one.

    Returns
    -------
    ConsoleSession or None
        None if there is none, it ran out, or the key that signed it is no key any more.
    """
    if ring is None:
        return ConsoleSession(DEVELOPER, cookie or secrets.token_hex(_NONCE_BYTES))
    text, _, signature = (cookie or "").rpartition(".")
    expires = text.partition(".")[0]
    if not (expires.isascii() and expires.isdigit() and int(expires[:12]) > time.time()):
        return None
    try:
        key = ring.signer(_message(text), bytes.fromhex(signature))
    except ValueError:
        return None
    return None if key is None else ConsoleSession(key, cookie or "")


def cookie_in(header: bytes | None) -> str | None:
    """Return the value of the cookie in a request's header.

    >>> cookie_in(b"a=1; segments_console=12.ab.cd"), cookie_in(b"a=1"), cookie_in(None)
    ('12.ab.cd', None, None)
    """
    try:
        morsel = SimpleCookie((header or b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def cookie_header(value: str, *, secure: bool, seconds: int = LIFETIME) -> tuple[bytes, bytes]:
    """Return the header that sets the cookie; with 0 seconds it takes it away.

    >>> cookie_header("x", secure=False)[1]
    b'segments_console=x; Path=/console; Max-Age=43200; HttpOnly; SameSite=Lax'
    """
    ending = "; Secure" if secure else ""
    text = f"{COOKIE}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Lax{ending}"
    return b"set-cookie", text.encode("latin-1")


def _message(text: str) -> bytes:
    return b"console session " + text.encode("latin-1", "replace")
