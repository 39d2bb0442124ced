"""The public names and their signatures, frozen: who changes one changes this file, and says why in the changelog."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest

import rules_engine
from rules_engine import errors, testing

PUBLIC = {
    "rules_engine": [
        "Assignment",
        "AsyncSegmentClient",
        "DecisionExplanation",
        "Explanation",
        "Membership",
        "SegmentClient",
    ],
    "rules_engine.sdk": ["Assignment", "AsyncSegmentClient", "Membership", "OnError", "SegmentClient"],
}

_ASK = "context: 'Mapping[str, Any] | None' = None"
_AT = "at: 'datetime | None' = None"
_OPEN = "on_error: 'OnError' = 'raise', timeout: 'float | None' = None"
_SEGMENTS = "segments: 'Iterable[str] | None' = None"

CLIENT = {
    "__init__": f"(self, project: 'Project', *, {_OPEN}) -> 'None'",
    "alias": f"(self, previous_id: 'str', entity: 'str', *, {_AT}) -> 'str'",
    "close": "(self) -> 'None'",
    "conditions": "property",
    "decide": f"(self, entity: 'str', decision: 'str', *, {_ASK}, {_AT}) -> 'Assignment'",
    "decide_all": (
        f"(self, entity: 'str', decisions: 'Iterable[str] | None' = None, *, {_ASK}, {_AT}) -> 'dict[str, Assignment]'"
    ),
    "decide_many": f"(self, entities: 'Sequence[str]', decision: 'str', *, {_ASK}, {_AT}) -> 'list[Assignment]'",
    "decisions": "property",
    "explain_decision": f"(self, entity: 'str', decision: 'str', *, {_ASK}, {_AT}) -> 'DecisionExplanation'",
    "explain": f"(self, entity: 'str', segment: 'str', *, {_ASK}, {_AT}) -> 'Explanation'",
    "features": f"(self, entity: 'str', names: 'Iterable[str] | None' = None, *, {_AT}) -> 'dict[str, Any]'",
    "from_repo": f"(path: 'str | Path' = '.', *, {_OPEN}) -> 'Self'",
    "is_member": f"(self, entity: 'str', segment: 'str', *, {_ASK}, {_AT}) -> 'bool'",
    "lookup": f"(self, entity: 'str', *, {_ASK}, {_SEGMENTS}, {_AT}) -> 'Membership'",
    "lookup_many": f"(self, entities: 'Sequence[str]', *, {_ASK}, {_SEGMENTS}, {_AT}) -> 'list[Membership]'",
    "plan": "property",
    "program": "property",
    "track": (
        "(self, entity: 'str', event: 'str', properties: 'Mapping[str, Any] | None' = None, *, "
        f"{_AT}, event_id: 'str | None' = None) -> 'str'"
    ),
}

MEMBERSHIP = {
    "at": "attribute",
    "changes_at": "property",
    "undecided": "property",
    "entity": "attribute",
    "error": "attribute",
    "segments": "attribute",
    "to_dict": "(self) -> 'dict[str, Any]'",
}

ERRORS = {
    "SegmentsError": "Exception",
    "ProjectError": "SegmentsError",
    "NotAppliedError": "ProjectError",
    "DefinitionError": "SegmentsError",
    "UnknownNameError": "SegmentsError",
    "DataError": "SegmentsError",
    "FeatureColumnError": "DataError",
    "UnsupportedError": "SegmentsError",
    "MissingExtraError": "SegmentsError",
    "StoreError": "SegmentsError",
    "StoreUnavailableError": "StoreError",
    "StoreTimeoutError": "StoreError",
    "StoreDataError": "StoreError",
}

EVALUATE = [
    "condition", "features", "context", "events", "now", "types", "segments", "entity", "properties",
]  # fmt: skip


def surface(owner: type) -> dict[str, str]:
    """What is public of a class and of its bases in this package, and how it is called."""
    ours = [base for base in reversed(owner.__mro__) if base.__module__.startswith("rules_engine.")]
    members = {name: value for base in ours for name, value in vars(base).items()}
    found = {"__init__": str(inspect.signature(owner.__init__))} if "__init__" in members else {}
    for name, value in members.items():
        if name.startswith("_"):
            continue
        member: Any = getattr(owner, name)
        if isinstance(value, property):
            found[name] = "property"
        elif callable(member):
            found[name] = str(inspect.signature(member))
        else:
            found[name] = "attribute"
    return found


@pytest.mark.parametrize("module", PUBLIC)
def test_a_module_exports_these_names_and_has_them(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__all__ == PUBLIC[module]
    for name in PUBLIC[module]:
        assert getattr(loaded, name).__name__ == name if name != "OnError" else getattr(loaded, name)
    with pytest.raises(AttributeError, match="no attribute 'SegmentKlient'"):
        _ = loaded.SegmentKlient


def test_the_clients_have_these_methods() -> None:
    assert surface(rules_engine.SegmentClient) == CLIENT
    assert surface(rules_engine.AsyncSegmentClient) == CLIENT


def test_a_membership_has_these_attributes() -> None:
    found = surface(rules_engine.Membership)
    del found["__init__"]
    assert found == MEMBERSHIP


def test_an_explanation_has_these_attributes() -> None:
    needed = {"entity", "segment", "verdict", "at", "changes_at", "to_dict"}
    assert needed <= surface(rules_engine.Explanation).keys()


def test_the_exceptions_are_these() -> None:
    found = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert found == ERRORS


def test_evaluate_takes_these_parameters() -> None:
    assert list(inspect.signature(testing.evaluate).parameters) == EVALUATE


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    program = "import rules_engine, sys; print([name for name in sys.modules if name.startswith('rules_engine.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "SegmentClient" in dir(rules_engine)
