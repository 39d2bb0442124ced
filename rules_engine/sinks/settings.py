"""Declares the settings of sinks: each field of a settings class says what may be written, and what it is for.

The checker, the JSON Schema for editors and the read plan are derived from these declarations: there is no second list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from enum import Enum
from typing import Any, ClassVar, Self

from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.errors import ProjectError
from rules_engine.sinks.variables import VARIABLE, expand, scrubbed

#: How long delivery of an action is tried, if the settings do not say it: a day, in microseconds.
GIVE_UP_AFTER = 24 * 3_600_000_000


#: How long an answer of a sink is waited for, if the settings do not say it, in microseconds.
TIMEOUT = 10_000_000

#: The longest time that an answer may take, in microseconds.
MAX_TIMEOUT = 120_000_000


class SettingType(Enum):
    """Names what may be written as the value of a setting."""

    TEXT = "text"  # a string
    TEXTS = "texts"  # names mapped to single values, which become strings
    WORDS = "words"  # a list of strings
    DURATION = "duration"  # e.g. 30m; in microseconds
    FLAG = "flag"  # true or false


class SettingError(Exception):
    """Raised by a check to refuse a value.

    Parameters
    ----------
    message
        what is wrong. It is shown only for what is written in a file, and never for the value of a variable.
    hint
        what to do. It must not repeat the value.
    code
        the diagnostic's code.
    at_key
        True if the key is wrong, and not the value.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, code: str = "invalid-setting", at_key: bool = False
    ) -> None:
        super().__init__(message)
        self.hint, self.code, self.at_key = hint, code, at_key


@dataclass(frozen=True, slots=True)
class Setting:
    """Describes one setting.

    Attributes
    ----------
    summary
        what it is for, as editors show it.
    expected
        what a message calls the value: ``an address, e.g. `https://crm.example/actions` ``.
    key
        how it is called in YAML, if otherwise than the field. The first setting of a kind is called like the kind.
    check
        raises :class:`SettingError` if a value cannot be used. It gets the value, and of TEXTS the name and the value.
        It runs when definitions load, on values with ``${VARIABLES}`` in them, and when the sink opens, on the values.
    is_secret
        True if the value has to come from a variable. In TEXTS, names such as ``password`` say it.
    lines
        in TEXTS, the names whose values may have several lines, as PEM files have.
    """

    type: SettingType
    summary: str
    expected: str = "a text"
    key: str | None = None
    check: Callable[..., None] | None = None
    is_secret: bool = False
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SinkWarning:
    """A warning of `segments validate` about settings that are accepted."""

    code: str
    message: str
    hint: str


_Metadata = Mapping[str, Setting]


def text(
    summary: str,
    *,
    expected: str = "a text",
    key: str | None = None,
    check: Callable[[str], None] | None = None,
    is_secret: bool = False,
) -> _Metadata:
    """Declare a string, as the metadata of a dataclass field of the type ``str``.

    >>> from dataclasses import dataclass, field
    >>> @dataclass(frozen=True)
    ... class PagerSettings(SinkSettings):
    ...     "A pager."
    ...     number: str = field(metadata=text("The number to call."))
    >>> PagerSettings("night", "110").number
    '110'
    """
    return {"setting": Setting(SettingType.TEXT, summary, expected, key, check, is_secret)}


def texts(summary: str, *, check: Callable[[str, str], None] | None = None, lines: tuple[str, ...] = ()) -> _Metadata:
    """Declare names mapped to strings, for a field of the type ``tuple[tuple[str, str], ...]``."""
    return {"setting": Setting(SettingType.TEXTS, summary, "names mapped to values", check=check, lines=lines)}


def words(summary: str, *, expected: str = "a text", check: Callable[[str], None] | None = None) -> _Metadata:
    """Declare a list of strings, for a field of the type ``tuple[str, ...]``."""
    return {"setting": Setting(SettingType.WORDS, summary, expected, check=check)}


def duration(summary: str, *, check: Callable[[int], None] | None = None) -> _Metadata:
    """Declare a duration such as ``30m``, for a field of the type ``int``: microseconds."""
    return {"setting": Setting(SettingType.DURATION, summary, "a duration", check=check)}


def flag(summary: str) -> _Metadata:
    """Declare ``true`` or ``false``, for a field of the type ``bool``."""
    return {"setting": Setting(SettingType.FLAG, summary, "`true` or `false`")}


def timeout() -> _Metadata:
    """Declare how long an answer is waited for, as the metadata of a dataclass field."""
    return duration("How long an answer is waited for; 10s if it is not given.", check=_check_timeout)


def _check_timeout(value: int) -> None:
    if value > MAX_TIMEOUT:
        message = "an answer is waited for at most `120s`: others wait behind it"
        raise SettingError(message, code="invalid-duration")


def _setting_of(declared: Field[Any]) -> Setting | None:
    setting = declared.metadata.get("setting")
    return setting if isinstance(setting, Setting) else None


@dataclass(frozen=True)
class SinkSettings:
    """Settings of one sink, as the ``project:`` document gives them; ``${VARIABLES}`` stay as they are written.

    A kind derives a frozen dataclass from it, whose fields are its settings. The first is what is written after the
    kind's name.
    """

    kind: ClassVar[str] = ""

    name: str
    give_up_after: int = field(
        default=GIVE_UP_AFTER,
        kw_only=True,
        metadata=duration("How long an action is tried; 1d if it is not given."),
    )
    span: Span = field(default=NO_SPAN, compare=False, repr=False, kw_only=True)

    # --- the declaration --------------------------------------------------------------------------------------------

    @classmethod
    def settings(cls) -> dict[str, tuple[str, Setting]]:
        """Return by key in YAML the field's name and the setting, the kind's own first."""
        settings: dict[str, tuple[str, Setting]] = {}
        for declared in _own_fields(cls):
            setting = _setting_of(declared)
            if setting is not None:
                key = cls.kind if not settings else setting.key or declared.name
                settings[key] = declared.name, setting
        return settings

    @classmethod
    def required(cls) -> tuple[str, ...]:
        """Return the keys that have to be written, the kind first."""
        return tuple(key for key, (name, _) in cls.settings().items() if _is_required(cls.__dataclass_fields__[name]))

    @classmethod
    def problem(cls, kind: str) -> str | None:
        """Return what is missing in the declaration of a kind's settings; None if it is complete."""
        if "__dataclass_params__" not in cls.__dict__:
            return "its settings are no dataclass of their own: write `@dataclass(frozen=True)`"
        if cls.__dict__.get("kind", kind) != kind:
            return f"its settings are those of `{cls.kind}` already"
        if not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}("):
            return "its settings have no docstring, which editors show"
        own = [declared for declared in _own_fields(cls) if declared.name != "give_up_after"]
        undeclared = [declared.name for declared in own if _setting_of(declared) is None]
        if undeclared:
            return f"the setting `{undeclared[0]}` is not declared: write `field(metadata=text(...))`"
        if not own or not _is_required(own[0]):
            return f"its settings have no first one without a default, which is what is written after `{kind}:`"
        return None

    def check(self) -> None:
        """Check settings that depend on each other; those of one setting alone it checks itself.

        Raises
        ------
        SettingError
            if they cannot be used together.
        """

    def warnings(self) -> Iterator[SinkWarning]:
        """Yield what `segments validate` warns of."""
        yield from ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    # --- the read plan ----------------------------------------------------------------------------------------------

    def encode(self) -> dict[str, Any]:
        """Return the settings as plain JSON data; positions in files are left out."""
        return {"sink": self.kind, "name": self.name} | {
            name: getattr(self, name) for name, _ in self.settings().values()
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Self:
        """Return the inverse of :meth:`encode`; a setting that the data does not know has its default.

        Raises
        ------
        ValueError
            if the data has other settings, or lacks one.
        """
        settings = {key: _as_tuple(value) for key, value in data.items() if key not in ("sink", "node")}
        try:
            return cls(**settings)
        except TypeError as error:
            raise ValueError(f"not the settings of a {cls.kind}: {error}") from error

    # --- opening ----------------------------------------------------------------------------------------------------

    def expanded(self) -> Self:
        """Return the settings with the values of variables put in and checked.

        Raises
        ------
        ProjectError
            if a variable is not set, or its value cannot be used. The message names the variable and never the value.
        """
        changed: dict[str, Any] = {}
        for key, (name, setting) in self.settings().items():
            value = getattr(self, name)
            if setting.type is SettingType.TEXT and value is not None:
                changed[name] = self._value(key, setting, value)
            elif setting.type is SettingType.TEXTS:
                changed[name] = tuple((entry, self._value(entry, setting, text, entry)) for entry, text in value)
            elif setting.type is SettingType.WORDS:
                changed[name] = tuple(self._value(key, setting, text) for text in value)
        expanded = replace(self, **changed)
        try:
            expanded.check()
        except SettingError as error:
            message = f"the sink `{self.name}` cannot be opened: {self.scrubbed(str(error))}"
            raise ProjectError(message, hint=error.hint) from None
        return expanded

    def scrubbed(self, message: str) -> str:
        """Return a message with the values of this sink's variables replaced by the variables' names."""
        return scrubbed(message, self._texts())

    def _value(self, key: str, setting: Setting, written: str, *before: str) -> str:
        value = expand(written, f"the sink `{self.name}`", lines=bool(before) and before[0] in setting.lines)
        if value != written and setting.check is not None:
            try:
                setting.check(*before, value)
            except SettingError as error:
                if error.code == "literal-secret":
                    return value  # in the value of a variable a secret is where it belongs
                names = " and ".join(f"${{{name}}}" for name in dict.fromkeys(VARIABLE.findall(written)))
                message = f"`{key}` of the sink `{self.name}` cannot be used with the value of {names}"
                raise ProjectError(message, hint=error.hint) from None
        return value

    def _texts(self) -> Iterator[str]:
        for name, setting in self.settings().values():
            value = getattr(self, name)
            if setting.type is SettingType.TEXT and value is not None:
                yield value
            elif setting.type is SettingType.TEXTS:
                yield from (inner for _, inner in value)
            elif setting.type is SettingType.WORDS:
                yield from value


def _own_fields(cls: type[SinkSettings]) -> list[Field[Any]]:
    """Return the fields that are settings: the kind's own first, then what every sink has."""
    settings = {declared.name: declared for declared in fields(cls) if declared.name not in ("name", "span")}
    common = settings.pop("give_up_after")
    return [*settings.values(), common]


def _is_required(declared: Field[Any]) -> bool:
    return declared.default is MISSING and declared.default_factory is MISSING


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
