"""Puts the values of environment variables into settings, and keeps them out of messages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from rules_engine.errors import ProjectError

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

#: Names of headers and options whose values are secrets.
SECRET_NAME = re.compile(r"authorization|cookie|password|passwd|secret|token|api[-_.]?key|ssl\.key\.pem", re.IGNORECASE)

#: Values that are shorter are not looked for in messages: they would be found in words.
_SHORTEST = 4


def expand(text: str, whose: str, *, lines: bool = False) -> str:
    r"""Return the text with its ``${VARIABLES}`` from the environment.

    Parameters
    ----------
    text
        as it is written in a file.
    whose
        who uses it, for messages: ``the sink `crm` ``.
    lines
        True if a value may have several lines.

    Raises
    ------
    ProjectError
        if a variable is not set, is empty, begins or ends with white space, or holds control characters: usual with
        secrets that are mounted as files. Nothing is stripped, and the message names the variable, not the value.

    >>> os.environ["HOST_OF_CRM"] = "crm.example"
    >>> expand("https://${HOST_OF_CRM}/$x", "the sink `crm`")
    'https://crm.example/$x'
    >>> os.environ["HOST_OF_CRM"] = "crm.example\n"
    >>> expand("https://${HOST_OF_CRM}/$x", "the sink `crm`")
    Traceback (most recent call last):
    ...
    rules_engine.errors.ProjectError: the sink `crm` uses ${HOST_OF_CRM}, whose value ends with a line break
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            hint = f"set the environment variable {name}"
            raise ProjectError(f"{whose} uses ${{{name}}}, which is not set", hint=hint)
        problem = _problem(os.environ[name], lines)
        if problem is not None:
            hint = f"correct the environment variable {name}; nothing is stripped from it"
            raise ProjectError(f"{whose} uses ${{{name}}}, whose value {problem}", hint=hint)
        return os.environ[name]

    return VARIABLE.sub(value, text)


def _problem(value: str, lines: bool) -> str | None:
    if not value.strip():
        return "is empty"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    if lines:
        return None
    if value != value.strip():
        if value.rstrip("\r\n") != value:
            return "ends with a line break"
        return "begins or ends with white space"
    return None if value.isprintable() else "holds a control character, or one that is invisible"


def scrubbed(message: str, texts: Iterable[str]) -> str:
    """Return a message in which the values of the variables in ``texts`` are replaced by the variables' names.

    >>> os.environ["CRM_TOKEN"] = "t0k3n"
    >>> scrubbed("b'Bearer t0k3n' is refused", ["Bearer ${CRM_TOKEN}"])
    "b'Bearer ${CRM_TOKEN}' is refused"
    """
    names = {name for text in texts for name in VARIABLE.findall(text)}
    values = {os.environ[name]: name for name in names if len(os.environ.get(name, "")) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        for form in (value, repr(value)[1:-1], quote(value, safe="", errors="surrogateescape")):
            message = message.replace(form, f"${{{values[value]}}}")
    return message
