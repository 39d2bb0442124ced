"""The quick check of documents is never more lenient than jsonschema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rules_engine.definitions.case_schema import schema_of_tests
from rules_engine.definitions.envelope import surely_fits
from rules_engine.definitions.source import from_plain
from rules_engine.events.declarations.events_yaml import EVENTS_SCHEMA
from rules_engine.rules.kinds import KINDS

SCHEMAS: list[dict[str, Any]] = [
    EVENTS_SCHEMA,
    *(kind.envelope for kind in KINDS.values()),
    *(schema_of_tests(kind.name, kind.case) for kind in KINDS.values() if kind.case),
]

_NAMES = ["a", "vip", "A", "vip\n", "", "30d", "UTC", "https://shop.example", "monday"]
_SCALARS = st.sampled_from([*_NAMES, None, True, False, 0, 1, 1.0, -1, 0.5, 10**20])


def _values(schema: Any) -> st.SearchStrategy[Any]:
    """Draw values, many of which fit a schema or nearly do."""
    if not isinstance(schema, dict):
        return _SCALARS
    parts = {key: _values(part) for key, part in schema.get("properties", {}).items()}
    required = {key: parts.pop(key) for key in schema.get("required", ()) if key in parts}
    complete = st.fixed_dictionaries(required, optional=parts)
    extra = st.dictionaries(st.sampled_from(_NAMES), _values(schema.get("additionalProperties")), max_size=2)
    mappings = st.one_of(complete, extra, st.builds(lambda one, other: {**one, **other}, complete, extra))
    by_type = {
        "object": mappings,
        "array": st.lists(_values(schema.get("items")), max_size=3),
        "string": st.sampled_from(_NAMES),
        "boolean": st.booleans(),
    }
    return st.one_of(by_type.get(str(schema.get("type")), _SCALARS), _SCALARS)


@pytest.mark.slow
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema["required"][0] if "required" in schema else "-")
@given(data=st.data())
def test_what_is_quickly_found_to_fit_also_fits_by_jsonschema(schema: dict[str, Any], data: st.DataObject) -> None:
    document = data.draw(_values(schema))
    if surely_fits(from_plain(document), schema):
        assert list(Draft202012Validator(schema).iter_errors(document)) == []


@pytest.mark.parametrize(
    "document",
    [
        {"segment": "vip", "when": {"feature": "user:age", "at_least": 18}},
        {"segment": "vip", "description": "a", "owner": "b", "tags": ["c"], "public": True, "when": {}},
    ],
)
def test_segments_that_fit_are_quickly_found_to(document: dict[str, Any]) -> None:
    assert surely_fits(from_plain(document), KINDS["segment"].envelope)
    assert not surely_fits(from_plain({**document, "whn": 1}), KINDS["segment"].envelope)
