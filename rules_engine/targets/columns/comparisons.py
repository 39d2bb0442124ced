"""Compares two sides, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rules_engine.rules.comparison import composite_value
from rules_engine.rules.nodes import Composite, ContextRef, Operand
from rules_engine.rules.predicates import as_read, context_value
from rules_engine.rules.types import Value, ValueType
from rules_engine.targets.columns.codes import Coded


def compared_rows(
    operand: Composite, columns: Mapping[Operand, Sequence[Value]], context: Mapping[str, Any], rows: int
) -> Coded:
    """Return for each row what the parts of an operand come to.

    Parameters
    ----------
    columns
        the values of the operands that are no context values, by row.
    context
        the same for all rows.
    """

    def value(row: int) -> Value:
        def read(part: Operand, value_type: ValueType | None) -> Value:
            if isinstance(part, ContextRef):
                return context_value(part, value_type, context)
            return as_read(columns[part][row], value_type)

        return composite_value(operand, read)

    return Coded.of(map(value, range(rows)))
