"""What docs/batch.md says of other engines is SQL of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel

PAGE = Path(__file__).parents[3] / "docs" / "batch.md"


def test_the_table_of_features_for_bigquery_parses_and_has_the_columns_that_queries_read() -> None:
    (written,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tree,) = sqlglot.parse(written, dialect="bigquery", error_level=ErrorLevel.RAISE)
    assert isinstance(tree, exp.Create)
    assert [column.alias for column in tree.expression.expressions] == [
        "entity",
        "rfm:__updated_at",
        "rfm:purchases_90d",
    ]
    assert tree.expression.args["qualify"] is not None
