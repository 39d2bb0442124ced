"""Reads the settings of sinks from YAML, and makes their JSON Schema, both from the declarations of the sink kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.parsing.document_keys import keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, duration
from rules_engine.rules.parsing.operand_checks import at_key, string_value
from rules_engine.sinks.base import STREAM
from rules_engine.sinks.registry import sink_kinds
from rules_engine.sinks.settings import Setting, SettingError, SettingType, SinkSettings
from rules_engine.sinks.variables import SECRET_NAME, VARIABLE

JsonSchema = dict[str, Any]


def sink_kind(node: Node) -> str | None:
    """Return the kind of sink that a node configures; None unless it is exactly one."""
    kinds = [entry.key for entry in node if entry.key in sink_kinds()] if isinstance(node, Mapping) else []
    return kinds[0] if len(kinds) == 1 else None


def sink_settings(entry: Entry, problems: list[Diagnostic]) -> SinkSettings | None:
    """Return the settings of a sink; None if one of them was refused, which is added to ``problems``.

    Raises
    ------
    Refusal
        if it is no sink.
    """
    kind = _kind(entry)
    settings = kind.settings()
    optional = tuple(key for key in settings if key not in kind.required())
    keys = keys_of(entry.value, kind.kind, kind.required(), optional)
    reader = _Reader(entry.key)
    values = {name: reader.value(key, setting, keys) for key, (name, setting) in settings.items() if key in keys}
    problems += reader.problems
    if reader.problems:
        return None
    main = keys.entry(kind.kind).value
    sink = kind(name=entry.key, span=main.span, **values)
    try:
        sink.check()
    except SettingError as error:
        raise Refusal(error.code, main, str(error), error.hint) from None
    return sink


def _kind(entry: Entry) -> type[SinkSettings]:
    kinds = [part for part in entry.value if part.key in sink_kinds()] if isinstance(entry.value, Mapping) else []
    if not kinds:
        raise _no_kind(entry)
    if len(kinds) > 1:
        message = f"a sink is of one kind, and this one has `{kinds[0].key}` and `{kinds[1].key}`"
        raise at_key("several-forms", kinds[1], message, "make two sinks of it")
    return sink_kinds()[kinds[0].key]


def _no_kind(entry: Entry) -> Refusal:
    kinds = listing(sink_kinds())
    if isinstance(entry.value, Mapping):
        for part in entry.value:
            if part.key == STREAM:
                hint = "remove it, and write `{stream: NAME}` after `send:`"
                return at_key("unknown-key", part, "a stream needs no configuration", hint)
            near = nearest(part.key, sink_kinds())
            if near:
                return at_key("unknown-key", part, f"there is no sink of the kind `{part.key}`", near)
        return Refusal("missing-key", entry.value, f"a sink needs one of {kinds}")
    example = 'write e.g. `{webhook: "https://crm.example/actions"}`'
    return Refusal("wrong-shape", entry.value, f"a sink is a mapping, not {describe(entry.value)}", example)


class _Reader:
    """Reads the values of one sink's settings; ``problems`` collects what is wrong."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self.problems: list[Diagnostic] = []
        self._readers: dict[SettingType, Callable[[str, Setting, Node], Any]] = {
            SettingType.TEXT: self._text,
            SettingType.TEXTS: self._texts,
            SettingType.WORDS: self._words,
            SettingType.DURATION: self._duration,
            SettingType.FLAG: self._flag,
        }

    def value(self, key: str, setting: Setting, keys: Mapping) -> Any:
        try:
            return self._readers[setting.type](key, setting, keys.entry(key).value)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _text(self, key: str, setting: Setting, node: Node) -> str:
        value = string_value(node, setting.expected)
        if setting.is_secret:
            self._check_is_variable(node, key, value)
        _check_variables(node, value)
        _check(setting, Entry(key, node.span, node), value)
        return value

    def _texts(self, key: str, setting: Setting, node: Node) -> tuple[tuple[str, str], ...]:
        if not isinstance(node, Mapping):
            raise Refusal("wrong-shape", node, f"`{key}` maps names to values, and is not {describe(node)}")
        return tuple(self._entries(setting, node))

    def _entries(self, setting: Setting, node: Mapping) -> Iterator[tuple[str, str]]:
        for entry in node:
            if not isinstance(entry.value, Scalar) or entry.value.value is None:
                message = f"`{entry.key}` has a single value, not {describe(entry.value)}"
                raise Refusal("wrong-shape", entry.value, message)
            value = entry.value.value
            written = str(value).lower() if isinstance(value, bool) else str(value)
            _check(setting, entry, entry.key, written)
            if SECRET_NAME.search(entry.key):
                self._check_is_variable(entry.value, entry.key, written)
            _check_variables(entry.value, written)
            yield entry.key, written

    def _words(self, key: str, setting: Setting, node: Node) -> tuple[str, ...]:
        if not isinstance(node, Items):
            raise Refusal("wrong-shape", node, f"`{key}` is a list, not {describe(node)}", f"write `{key}: [...]`")
        return tuple(self._text(key, setting, item) for item in node.items)

    def _duration(self, key: str, setting: Setting, node: Node) -> int:
        value = duration(node)
        _check(setting, Entry(key, node.span, node), value)
        return value

    def _flag(self, key: str, _: Setting, node: Node) -> bool:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        raise Refusal("literal-type", node, f"`{key}` is `true` or `false`, not {describe(node)}")

    def _check_is_variable(self, node: Node, key: str, written: str) -> None:
        """Refuse a secret in plain text, because definitions are under version control and in the read plan."""
        if not VARIABLE.search(written):
            word = re.sub(r"[^A-Z0-9]+", "_", key.upper()).strip("_")
            message = f"`{key}` is spelt out, and whoever reads this file would know it"
            hint = f"write `${{{self._sink.upper()}_{word}}}`, and set the environment variable"
            raise Refusal("literal-secret", node, message, hint)


def _check(setting: Setting, entry: Entry, *values: Any) -> None:
    if setting.check is None:
        return
    try:
        setting.check(*values)
    except SettingError as error:
        if error.at_key:
            raise at_key(error.code, entry, str(error), error.hint) from None
        raise Refusal(error.code, entry.value, str(error), error.hint) from None


def _check_variables(node: Node, written: str) -> None:
    if "${" in VARIABLE.sub("", written):
        hint = "write `${NAME}`, with letters, digits and underscores"
        raise Refusal("invalid-variable", node, "this names no environment variable", hint)


# --- for editors ----------------------------------------------------------------------------------------------------

_SCALAR: JsonSchema = {"type": ["boolean", "number", "string"]}

_SCHEMAS: dict[SettingType, JsonSchema] = {
    SettingType.TEXT: {"type": "string"},
    SettingType.TEXTS: {"type": "object", "additionalProperties": _SCALAR},
    SettingType.WORDS: {"type": "array", "items": {"type": "string"}},
    SettingType.DURATION: {"$ref": "#/definitions/duration"},
    SettingType.FLAG: {"type": "boolean"},
}


def sink_schemas() -> list[JsonSchema]:
    """Return the JSON Schema of every kind of sink, for editors."""
    return [
        {
            "type": "object",
            "description": (kind.__doc__ or "").split("\n\n")[0],
            "properties": {key: _schema(setting) for key, (_, setting) in kind.settings().items()},
            "required": list(kind.required()),
            "additionalProperties": False,
        }
        for kind in sink_kinds().values()
    ]


def _schema(setting: Setting) -> JsonSchema:
    schema = {**_SCHEMAS[setting.type], "description": setting.summary}
    return {**schema, "pattern": r"\$\{"} if setting.is_secret else schema
