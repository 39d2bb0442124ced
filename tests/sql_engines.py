"""Runs generated SQL on engines beside DuckDB, where a machine has them: the same tables, the same questions.

PostgreSQL needs its server programs (Debian: the package ``postgresql``), Spark needs Java and the package ``pyspark``.
Neither is a dependency: tests that use them skip where they are not installed.
"""

from __future__ import annotations

import csv
import io
import math
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, Not, SegmentRef
from rules_engine.rules.program import Program
from rules_engine.targets.sql.compile import Compiler
from rules_engine.targets.sql.engines import find_engine
from rules_engine.targets.sql.load import load
from rules_engine.targets.sql.tables import Tables
from rules_engine.testing import CONDITION, Scenario

Truth = bool | None


@dataclass(frozen=True)
class Question:
    """Some segments of a program, judged for some users at an instant."""

    program: Program
    segments: Sequence[str]
    users: Sequence[Inputs]
    now: int

    def load(self) -> tuple[Tables, pa.Table, pa.Table]:
        conditions = [self.program.segment(name).when for name in self.program.closure(self.segments)]
        return load(self.users, conditions)

    def query(self, dialect: str, tables: Tables) -> str:
        labels = {name: f"segment {number}" for number, name in enumerate(self.program.closure(self.segments))}
        compiler = Compiler(find_engine(dialect), self.program, self.segments, tables, self.now, {}, labels)
        return compiler.query().sql(dialect=dialect, pretty=True, copy=False)

    def answers(self, rows: Iterable[Sequence[Any]]) -> list[dict[str, Truth]]:
        """The answers per user, from rows of entity and segments."""
        by_position = {int(row[0]): dict(zip(self.segments, row[1:], strict=True)) for row in rows}
        return [by_position[position] for position in range(len(self.users))]


# --- many scenarios in one question ---------------------------------------------------------------------------------


def merge(scenarios: Sequence[Scenario]) -> Question:
    """One question about scenarios of one instant: every condition is judged for every user, whosever it is."""
    (now,) = {scenario.now for scenario in scenarios}
    segments = {}
    for number, scenario in enumerate(scenarios):
        for name, segment in scenario.program.segments.items():
            segments[f"{number} {name}"] = replace(
                segment, name=f"{number} {name}", when=_renamed(segment.when, f"{number} ")
            )
    asked = [f"{number} {CONDITION}" for number in range(len(scenarios))]
    return Question(Program(segments), asked, [scenario.inputs for scenario in scenarios], now)


def _renamed(condition: Condition, prefix: str) -> Condition:
    match condition:
        case AllOf() | AnyOf():
            return replace(condition, conditions=tuple(_renamed(child, prefix) for child in condition.conditions))
        case Not():
            return replace(condition, condition=_renamed(condition.condition, prefix))
        case SegmentRef():
            return replace(condition, name=prefix + condition.name)
    return condition


def own_answers(answers: Sequence[Mapping[str, Truth]]) -> list[Truth]:
    """Of merged scenarios, each user's answer to the own condition."""
    return [each[f"{number} {CONDITION}"] for number, each in enumerate(answers)]


# --- PostgreSQL -----------------------------------------------------------------------------------------------------

_POSTGRES_TYPES = {
    pa.string(): "text",
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.bool_(): "boolean",
    pa.binary(): "bytea",
}


def find_postgres() -> Path | None:
    """The folder with the server's programs, the newest if there are several; None if it cannot be run here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    programs = found[-1].parent if found else Path(on_path).parent if on_path else None
    return programs if shutil.which("psql") and (os.geteuid() != 0 or _has_user("postgres")) else None


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def postgres_server(folder: Path) -> Iterator[Path]:
    """A private server in a folder, reached by a socket in it; yields the folder to connect to."""
    programs = find_postgres()
    assert programs is not None
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    if user:  # the server refuses to run as root
        shutil.chown(folder, "postgres")
    data = folder / "data"
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    _run(
        [*user, programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"],
        folder,
    )
    _run([*user, programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], folder)
    try:
        yield folder
    finally:
        _run([*user, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], folder)


def _run(command: Sequence[Any], folder: Path) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=folder, stdout=subprocess.DEVNULL)


def ask_postgres(socket: Path, questions: Sequence[Question]) -> list[list[dict[str, Truth]]]:
    """The answers of the server to several questions, in one session whose time zone is far from UTC."""
    script = io.StringIO("")
    script.write("\\set ON_ERROR_STOP on\nset time zone 'Pacific/Auckland';\nset client_min_messages = warning;\n")
    for question in questions:
        tables, features, events = question.load()
        _write_table(script, "features", features)
        _write_table(script, "events", events)
        script.write("\\echo ---\n" + question.query("postgres", tables) + ";\ndrop table features, events;\n")
    command = ["psql", "-h", str(socket), "-U", "postgres", "-q", "--csv", "-t", "-P", "null=?", "-f", "-"]
    done = subprocess.run(command, input=script.getvalue(), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stderr}\nafter {done.stdout.count('---')} questions\n"
    parts = done.stdout.split("---\n")[1:]
    words = {"t": True, "f": False, "?": None}
    answers = []
    for question, part in zip(questions, parts, strict=True):
        rows = [[row[0], *(words[cell] for cell in row[1:])] for row in csv.reader(io.StringIO(part))]
        answers.append(question.answers(rows))
    return answers


def _write_table(script: io.StringIO, name: str, table: pa.Table) -> None:
    columns = ", ".join(f'"{_escaped(field.name)}" {_postgres_type(field.type)}' for field in table.schema)
    script.write(f"create temp table {name} ({columns});\n")
    rows = [list(row.values()) for row in table.to_pylist()]
    types = [_postgres_type(field.type) for field in table.schema]
    if rows:
        values = ",\n".join(f"({', '.join(map(_postgres_literal, row, types))})" for row in rows)
        script.write(f"insert into {name} values {values};\n")


def _escaped(name: str) -> str:
    return name.replace('"', '""')


def _postgres_type(arrow: pa.DataType) -> str:
    return f"{_POSTGRES_TYPES[arrow.value_type]}[]" if pa.types.is_list(arrow) else _POSTGRES_TYPES[arrow]


def _postgres_literal(value: Any, type_name: str) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        element = type_name.removesuffix("[]")
        return f"array[{', '.join(_postgres_literal(each, element) for each in value)}]::{type_name}"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::bytea"
    if isinstance(value, float):
        text = repr(value) if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        return f"'{text}'::double precision"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else f"'{value}'::{type_name}"


def without_zeros(question: Question) -> bool:
    """Whether no string of the data holds a zero character, which PostgreSQL cannot store."""
    _, features, events = question.load()
    return not any(
        "\0" in str(cell) for table in (features, events) for row in table.to_pylist() for cell in row.values()
    )


def within_range(question: Question) -> bool:
    """Say whether no product can leave the range of floats, which ends a query of PostgreSQL."""
    _, features, events = question.load()
    cells = [cell for table in (features, events) for row in table.to_pylist() for cell in row.values()]
    return not any(isinstance(cell, float) and 1e150 < abs(cell) < math.inf for cell in cells)


# --- Spark ----------------------------------------------------------------------------------------------------------


def ask_spark(session: Any, questions: Sequence[Question]) -> list[list[dict[str, Truth]]]:
    """The answers of a Spark session to several questions."""
    answers = []
    for question in questions:
        tables, features, events = question.load()
        session.createDataFrame(features).createOrReplaceTempView("features")
        session.createDataFrame(events).createOrReplaceTempView("events")
        rows = session.sql(question.query("spark", tables)).collect()
        answers.append(question.answers(tuple(row) for row in rows))
    return answers
