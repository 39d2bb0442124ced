"""The keys of a service: who may do what. Their values come from the environment, and are never logged."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rules_engine.errors import ProjectError
from rules_engine.rules.settings.nodes import Role
from rules_engine.service.problems import Problem
from rules_engine.sinks.variables import VARIABLE, expand

_log = logging.getLogger("rules_engine.service")

#: A key that is shorter can be guessed.
SHORTEST = 16

#: Seconds between two looks at the files that hold keys.
_LOOK_EVERY = 1.0


#: By the role of a key, what it may do.
GRANTS: Mapping[Role, frozenset[Role]] = {
    Role.EVALUATE: frozenset({Role.EVALUATE}),
    Role.TRACK: frozenset({Role.TRACK}),
    Role.CONSOLE: frozenset({Role.CONSOLE}),
    Role.READ: frozenset({Role.EVALUATE, Role.CONSOLE, Role.READ}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(slots=True, eq=False)
class Key:
    """A key that was recognized. Its tokens are requests that it may send at once; they fill up with time."""

    role: Role
    rate: float | None = None
    tokens: float = 0.0
    filled_at: float = 0.0

    def take(self) -> float:
        """Take the token of one request; returns 0, or the seconds after which there is one."""
        if self.rate is None:
            return 0.0
        now = time.monotonic()
        self.tokens = min(self.rate, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0


#: Who asks a service that runs with ``--dev``, which knows no keys.
DEVELOPER = Key(Role.ADMIN)


class KeyRing:
    """Knows the keys of a service.

    A key is the value of an environment variable that the project's settings name. Where the variable ``NAME`` is not
    set but ``NAME_FILE`` is, each line of that file is a key; the file is read anew when it changes.

    Parameters
    ----------
    variables
        by role, texts such as ``${SHOP_KEY}``.
    rates
        by role, how many requests a key may send each second; in bursts as many at once.

    Raises
    ------
    ProjectError
        if a variable is not set, or holds no key.
    """

    def __init__(self, variables: Mapping[Role, Sequence[str]], rates: Mapping[Role, float]) -> None:
        self._variables = variables
        self._rates = rates
        self._files = sorted(set(_files(text for texts in self._variables.values() for text in texts)))
        self._stamps = self._look()
        self._look_at = time.monotonic() + _LOOK_EVERY
        self._keys = self._load({})

    def find(self, secret: str) -> Key | None:
        """Return the key with a value; None if there is none. The time that it takes says nothing about any key."""
        self._follow_files()
        digest = _digest(secret)
        match = None
        for of_key, key in self._keys.items():
            if hmac.compare_digest(of_key, digest):
                match = key
        return match

    def signer(self, message: bytes, signature: bytes) -> Key | None:
        """Return the key with which :func:`sign` signed a message; None if none of the keys of now did."""
        self._follow_files()
        match = None
        for digest, key in self._keys.items():
            if hmac.compare_digest(hmac.digest(digest, message, "sha256"), signature):
                match = key
        return match

    def _follow_files(self) -> None:
        now = time.monotonic()
        if not self._files or now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._keys = self._load(self._keys)
        except ProjectError:
            _log.exception("the new keys cannot be used; the ones before stay")

    def _look(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for path in self._files]

    def _load(self, earlier: Mapping[bytes, Key]) -> dict[bytes, Key]:
        """Return the keys by digest; those of earlier keys keep their tokens."""
        keys: dict[bytes, Key] = {}
        for role, texts in self._variables.items():
            for secret in (secret for text in texts for secret in _values(text)):
                digest = _digest(secret)
                before = earlier.get(digest)
                rate = self._rates.get(role)
                if digest in keys and keys[digest].role is not role:
                    raise ProjectError(
                        f"one key has the roles `{keys[digest].role.value}` and `{role.value}`",
                        hint="use a key of its own for each role",
                    )
                keys[digest] = before if before and before.role is role else Key(role, rate, rate or 0.0)
        return keys


def _files(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for name in VARIABLE.findall(text):
            if name not in os.environ and f"{name}_FILE" in os.environ:
                yield os.environ[f"{name}_FILE"]


def _values(text: str) -> list[str]:
    """Return the keys that a text such as ``${NAME}`` stands for."""
    whose = "the service"
    files = list(_files([text]))
    values = _lines(files[0], text) if files else [expand(text, whose)]
    for value in values:
        if len(value) < SHORTEST:
            raise ProjectError(
                f"{whose} uses {text}, and a key in it has {len(value)} characters",
                hint=f"a key has at least {SHORTEST}: `openssl rand -hex 24` makes one",
            )
    return values


def _lines(path: str, text: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"the service uses {text}, and {path} cannot be read: {error}") from None
    keys = [line for line in lines if line]
    if not keys:
        raise ProjectError(f"the service uses {text}, and {path} holds no key", hint="write one key a line")
    return keys


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def sign(secret: str, message: bytes) -> bytes:
    """Return a signature that only who has the key can make, and that does not tell the key."""
    return hmac.digest(_digest(secret), message, "sha256")


def secret_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the key that a request brings: a bearer token, the user of Basic authentication, or ``X-API-Key``.

    >>> secret_in([(b"authorization", b"Bearer abc")]), secret_in([(b"x-api-key", b"abc")]), secret_in([])
    ('abc', 'abc', None)
    >>> secret_in([(b"authorization", b"Basic YWJjOg==")])
    'abc'
    """
    for name, value in headers:
        if name == b"x-api-key":
            return value.decode("latin-1")
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return rest.strip()
            if scheme.lower() == "basic":
                return _user(rest.strip())
    return None


def _user(encoded: str) -> str | None:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return None


def authorize(ring: KeyRing | None, secret: str | None, role: Role) -> Key:
    """Return the key of a request, if it may do what a role may, and takes no more than its share.

    Parameters
    ----------
    ring
        the keys; None with ``--dev``, where everybody may do everything.
    secret
        what the request brought.
    role
        what it needs.

    Raises
    ------
    Problem
        401 without a key that is known, 403 for one that may not do this, 429 for one that sends too much.
    """
    if ring is None:
        return DEVELOPER
    if secret is None:
        hint = "send `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        raise Problem(401, "no-key", "this needs a key", hint, [(b"www-authenticate", b"Bearer")])
    key = ring.find(secret)
    if key is None:
        raise Problem(401, "unknown-key", "the key is not known", headers=[(b"www-authenticate", b"Bearer")])
    admit(key, role)
    return key


def admit(key: Key, role: Role) -> None:
    """Count a request of a key, if the key may do what a role may, and takes no more than its share.

    Raises
    ------
    Problem
        403 for a key that may not do this, 429 for one that sends too much.
    """
    if role not in GRANTS[key.role]:
        message = f"a key with the role `{key.role.value}` may not do this"
        raise Problem(403, "not-allowed", message, f"use one with the role `{role.value}`")
    wait = key.take()
    if wait:
        seconds = b"%d" % max(1, round(wait + 0.5))
        raise Problem(429, "too-many-requests", "the key sends too many requests", headers=[(b"retry-after", seconds)])
