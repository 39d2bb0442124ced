"""The ``project:`` document: the instant that counts as now, where consents stand, and the sinks that actions go to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from rules_engine.clock import parse_instant
from rules_engine.definitions.source import Entry, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import NAME, keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, duration
from rules_engine.rules.parsing.operand_checks import at_key, string_value
from rules_engine.rules.triggers.nodes import (
    GIVE_UP_AFTER,
    FileSettings,
    KafkaSettings,
    SinkKind,
    SinkSettings,
    WebhookSettings,
)
from rules_engine.rules.types import BOOLEAN

_T = TypeVar("_T")

#: How long an answer of a sink is waited for, if the settings do not say it.
TIMEOUT = 10_000_000

#: The longest time that an answer may take.
MAX_TIMEOUT = 120_000_000

_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_SECRET_NAME = re.compile(
    r"authorization|cookie|password|passwd|secret|token|api[-_.]?key|ssl\.key\.pem", re.IGNORECASE
)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}\Z")

#: The headers that a webhook sets itself.
OWN_HEADERS = frozenset(
    {
        "connection", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "user-agent",
        "webhook-signature", "webhook-timestamp",
    }
)  # fmt: skip

#: The options of librdkafka that a Kafka sink sets itself: without them an action could be lost, or come twice.
OWN_OPTIONS = frozenset(
    {
        "acks", "bootstrap.servers", "delivery.timeout.ms", "enable.idempotence", "max.in.flight",
        "max.in.flight.requests.per.connection", "message.timeout.ms", "metadata.broker.list", "request.required.acks",
    }
)  # fmt: skip

#: By kind, the keys of a sink besides the kind's own: those that are required, and those that may be.
SINK_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    SinkKind.WEBHOOK.value: ((), ("secret", "headers", "timeout", "give_up_after")),
    SinkKind.KAFKA.value: (("topic",), ("options", "timeout", "give_up_after")),
    SinkKind.FILE.value: ((), ("give_up_after",)),
}


@dataclass(slots=True)
class ParsedSettings:
    """What a document says; under names whose value was refused stands None."""

    name: str = ""
    now: int | None = None
    consent: dict[str, FeatureRef | None] = field(default_factory=dict)
    sinks: dict[str, SinkSettings | None] = field(default_factory=dict)
    kinds: dict[str, SinkKind | None] = field(default_factory=dict)


class SettingsParser:
    """Parses a project's settings; ``problems`` collects what is wrong."""

    def __init__(self, conditions: ConditionParser) -> None:
        self._conditions = conditions
        self.problems: list[Diagnostic] = []

    def settings(self, document: Mapping) -> ParsedSettings:
        """The settings of a document whose envelope was checked."""
        parsed = ParsedSettings(str(to_plain(document.entry("project").value)))
        if "now" in document:
            parsed.now = self._collected(_instant, document.entry("now").value)
        for entry in self._entries(document, "consent", "maps names to features, e.g. `{marketing: user:marketing}`"):
            parsed.consent[entry.key] = self._collected(self._consent, entry)
        for entry in self._entries(document, "sinks", 'maps names to sinks, e.g. `{crm: {webhook: "https://..."}}`'):
            parsed.kinds[entry.key] = sink_kind(entry.value)
            parsed.sinks[entry.key] = self._collected(self._sink, entry)
        return parsed

    def _entries(self, document: Mapping, key: str, what: str) -> tuple[Entry, ...]:
        value = document.get(key)
        if value is None or isinstance(value, Mapping):
            return () if value is None else value.entries
        self.problems.append(Diagnostic("wrong-shape", value.span, f"`{key}` {what}, and is not {describe(value)}"))
        return ()

    def _collected(self, parse: Callable[[_N], _T], given: _N) -> _T | None:
        try:
            return parse(given)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _consent(self, entry: Entry) -> FeatureRef:
        _check_name(entry, "a consent")
        operand, value_type = self._conditions.feature(entry.value)
        if not isinstance(operand, FeatureRef) or value_type not in (None, BOOLEAN):
            message = f"a consent is a feature that is true or false, and `{operand}` is of type {value_type}"
            raise Refusal("operator-type", entry.value, message)
        return operand

    # --- sinks ------------------------------------------------------------------------------------------------------

    def _sink(self, entry: Entry) -> SinkSettings:
        _check_name(entry, "a sink")
        kinds = [part for part in entry.value if part.key in SINK_KEYS] if isinstance(entry.value, Mapping) else []
        if not kinds or not isinstance(entry.value, Mapping):
            raise _no_kind(entry)
        if len(kinds) > 1:
            message = f"a sink is of one kind, and this one has `{kinds[0].key}` and `{kinds[1].key}`"
            raise at_key("several-forms", kinds[1], message, "make two sinks of it")
        kind = kinds[0].key
        required, optional = SINK_KEYS[kind]
        keys = keys_of(entry.value, kind, (kind, *required), optional)
        give_up_after = duration(keys.entry("give_up_after").value) if "give_up_after" in keys else GIVE_UP_AFTER
        if kind == SinkKind.WEBHOOK.value:
            return self._webhook(entry.key, keys, give_up_after)
        if kind == SinkKind.KAFKA.value:
            return self._kafka(entry.key, keys, give_up_after)
        path = keys.entry("file").value
        return FileSettings(entry.key, string_value(path, "the path of a file"), give_up_after, path.span)

    def _webhook(self, name: str, keys: Mapping, give_up_after: int) -> WebhookSettings:
        url = self._url(keys.entry("webhook").value)
        secret = None
        if "secret" in keys:
            secret = string_value(keys.entry("secret").value, "a secret, `${VARIABLE}`")
            _check_variable(keys.entry("secret").value, "secret", name)
        headers = tuple(self._header(entry, name) for entry in self._entries(keys, "headers", "maps names to values"))
        span = keys.entry("webhook").value.span
        return WebhookSettings(name, url, secret, headers, _timeout(keys), give_up_after, span)

    def _url(self, node: Node) -> str:
        url = string_value(node, "an address, e.g. `https://crm.example/actions`")
        _check_variables(node, url)
        if _VARIABLE.match(url):
            return url
        try:
            parts = urlsplit(_VARIABLE.sub("x", url))
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise Refusal("invalid-url", node, f"`{url}` is no address: {error}") from None
        if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
            hint = "write e.g. `https://crm.example/actions`"
            raise Refusal("invalid-url", node, f"`{url}` is not the address of a webhook", hint)
        if parts.password is not None:
            raise _literal_secret(node, "the address", "CRM_URL")
        return url

    def _header(self, entry: Entry, sink: str) -> tuple[str, str]:
        if not _HEADER.match(entry.key):
            raise at_key("invalid-name", entry, f"`{entry.key}` cannot be the name of a header")
        if entry.key.lower() in OWN_HEADERS:
            raise at_key("option-not-allowed", entry, f"the webhook sets `{entry.key}` itself", "remove it")
        value = string_value(entry.value, "the value of a header")
        if not value.isprintable() or not value.isascii():
            raise Refusal("literal-type", entry.value, "the value of a header is printable ASCII")
        if _SECRET_NAME.search(entry.key):
            _check_variable(entry.value, entry.key, sink)
        _check_variables(entry.value, value)
        return entry.key, value

    def _kafka(self, name: str, keys: Mapping, give_up_after: int) -> KafkaSettings:
        node = keys.entry("kafka").value
        brokers = string_value(node, "the brokers, `host:port,host:port`")
        _check_variables(node, brokers)
        if not _VARIABLE.search(brokers) and not all(_SERVER.match(part.strip()) for part in brokers.split(",")):
            hint = "write `host:port`, several separated by commas"
            raise Refusal("invalid-address", node, f"`{brokers}` names no Kafka brokers", hint)
        topic = string_value(keys.entry("topic").value, "the name of a topic")
        if not _TOPIC.match(topic) or topic in (".", ".."):
            hint = "write letters, digits and `. _ -`, at most 249"
            raise Refusal("invalid-name", keys.entry("topic").value, f"`{topic}` cannot be the name of a topic", hint)
        options = tuple(_option(entry, name) for entry in self._entries(keys, "options", "maps names to values"))
        return KafkaSettings(name, brokers, topic, options, _timeout(keys), give_up_after, node.span)


_N = TypeVar("_N", Node, Entry)


def _instant(node: Node) -> int:
    try:
        return parse_instant(str(to_plain(node)))
    except ValueError as error:
        code = "instant-without-offset" if "has no offset" in str(error) else "invalid-instant"
        raise Refusal(code, node, str(error)) from None


def _check_name(entry: Entry, what: str) -> None:
    if not NAME.match(entry.key):
        hint = "write small letters, digits and underscores, starting with a letter, at most 63"
        raise at_key("invalid-name", entry, f"`{entry.key}` cannot be the name of {what}", hint)


def sink_kind(node: Node) -> SinkKind | None:
    """What kind of sink is configured there, if it is clear."""
    found = [entry.key for entry in node if entry.key in SINK_KEYS] if isinstance(node, Mapping) else []
    return SinkKind(found[0]) if len(found) == 1 else None


def _no_kind(entry: Entry) -> Refusal:
    kinds = listing(SINK_KEYS)
    if isinstance(entry.value, Mapping):
        for part in entry.value:
            if part.key == SinkKind.STREAM.value:
                hint = "remove it, and write `{stream: NAME}` after `send:`"
                return at_key("unknown-key", part, "a stream needs no configuration", hint)
            near = nearest(part.key, SINK_KEYS)
            if near:
                return at_key("unknown-key", part, f"there is no sink of the kind `{part.key}`", near)
        return Refusal("missing-key", entry.value, f"a sink needs one of {kinds}")
    example = 'write e.g. `{webhook: "https://crm.example/actions"}`'
    return Refusal("wrong-shape", entry.value, f"a sink is a mapping, not {describe(entry.value)}", example)


def _timeout(keys: Mapping) -> int:
    if "timeout" not in keys:
        return TIMEOUT
    timeout = duration(keys.entry("timeout").value)
    if timeout > MAX_TIMEOUT:
        message = "an answer is waited for at most `120s`: others wait behind it"
        raise Refusal("invalid-duration", keys.entry("timeout").value, message)
    return timeout


def _option(entry: Entry, sink: str) -> tuple[str, str]:
    if entry.key in OWN_OPTIONS:
        message = f"the sink sets `{entry.key}` itself, so that no action is lost or doubled"
        raise at_key("option-not-allowed", entry, message, "remove it")
    if not isinstance(entry.value, Scalar) or entry.value.value is None:
        raise Refusal("wrong-shape", entry.value, f"an option has a single value, not {describe(entry.value)}")
    value = entry.value.value
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _SECRET_NAME.search(entry.key):
        _check_variable(entry.value, entry.key, sink)
    _check_variables(entry.value, text)
    return entry.key, text


def _check_variables(node: Node, text: str) -> None:
    if "${" in _VARIABLE.sub("", text):
        hint = "write `${NAME}`, with letters, digits and underscores"
        raise Refusal("invalid-variable", node, "this names no environment variable", hint)


def _check_variable(node: Node, key: str, sink: str) -> None:
    """Refuse a secret that is spelt out: definitions are under version control, and in the read plan."""
    text = node.value if isinstance(node, Scalar) else None
    if not isinstance(text, str) or not _VARIABLE.search(text):
        word = re.sub(r"[^A-Z0-9]+", "_", key.upper()).strip("_")
        raise _literal_secret(node, f"`{key}`", f"{sink.upper()}_{word}")


def _literal_secret(node: Node, what: str, variable: str) -> Refusal:
    message = f"{what} is spelt out, and whoever reads this file would know it"
    return Refusal("literal-secret", node, message, f"write `${{{variable}}}`, and set the environment variable")
