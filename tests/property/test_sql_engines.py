"""The same rules on PostgreSQL and Spark, where they are installed: conformance cases, random definitions, patterns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.errors import UnsupportedError
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.text import compile_pattern, pattern_problem
from rules_engine.rules.types import STRING
from rules_engine.testing import CONDITION
from tests.property.test_sql import Batch, batches
from tests.sql_engines import (
    Question,
    ask_postgres,
    ask_spark,
    find_postgres,
    postgres_server,
    within_range,
    without_zeros,
)
from tests.unit.targets.test_sql_conformance import together

BATCHES = 25
KEPT_CASES = 0.95


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    if find_postgres() is None:
        pytest.skip("the programs of a PostgreSQL server are not installed")
    short = "/tmp"  # a socket's path has to be
    with tempfile.TemporaryDirectory(prefix="pg", dir=short) as folder, postgres_server(Path(folder)) as socket:
        yield socket


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    options = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.session.timeZone": "Pacific/Auckland",
    }
    builder = sql.SparkSession.builder.master("local[1]")
    for key, value in options.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def expected(question: Question) -> list[dict[str, bool | None]]:
    plain = [Evaluation(question.program, inputs, question.now) for inputs in question.users]
    return [{name: each.segment(name) for name in question.segments} for each in plain]


def sayable(question: Question, dialect: str) -> bool:
    """Whether the dialect can say all of it; what it cannot say is refused with a reason, never answered wrongly."""
    try:
        question.query(dialect, question.load()[0])
    except UnsupportedError:
        return False
    return dialect != "postgres" or (without_zeros(question) and within_range(question))


def split(question: Question, dialect: str) -> list[Question]:
    """The question, or as much of it as the dialect can say."""
    if sayable(question, dialect):
        return [question]
    single = [Question(question.program, [name], question.users, question.now) for name in question.segments]
    return [each for each in single if sayable(each, dialect)]


def conformance(dialect: str) -> list[Question]:
    questions = [part for question in together() for part in split(question, dialect)]
    asked = sum(len(question.segments) for question in questions)
    assert asked >= KEPT_CASES * sum(len(question.segments) for question in together())
    return questions


def random_questions() -> list[Question]:
    """A fixed choice of random batches: the engine is asked about all of them at once."""
    drawn: list[Batch] = []

    @settings(
        max_examples=BATCHES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(batches())
    def draw(batch: Batch) -> None:
        drawn.append(batch)

    draw()
    questions = []
    for batch in drawn:
        program = batch.program()
        names = [name for name in program.names if name != CONDITION]
        users = [inputs for _, inputs in batch.inputs()]
        questions.append(Question(program, names, users, to_micros(batch.words.now)))
    return questions


def test_conformance_on_postgres(postgres: Path) -> None:
    questions = conformance("postgres")
    for question, answers in zip(questions, ask_postgres(postgres, questions), strict=True):
        assert answers == expected(question)


def test_random_definitions_on_postgres(postgres: Path) -> None:
    questions = [part for question in random_questions() for part in split(question, "postgres")]
    assert len(questions) >= BATCHES
    for question, answers in zip(questions, ask_postgres(postgres, questions), strict=True):
        assert answers == expected(question)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_conformance_on_spark(spark: Any) -> None:
    questions = conformance("spark")
    for question, answers in zip(questions, ask_spark(spark, questions), strict=True):
        assert answers == expected(question)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_random_definitions_on_spark(spark: Any) -> None:
    questions = [part for question in random_questions() for part in split(question, "spark")]
    for question, answers in zip(questions, ask_spark(spark, questions), strict=True):
        assert answers == expected(question)


# --- patterns -------------------------------------------------------------------------------------------------------

ATOMS = (
    *("a", "b", "k", "S", "é", "σ", "ß", "_", "-", "1", " ", ".", r"\.", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S"),
    *(
        r"\n",
        r"\t",
        r"\v",
        "[ab]",
        "[^a]",
        "[a-c]",
        r"[\d_]",
        r"[^\w]",
        r"[\S]",
        r"[a\D]",
        r"[^\s]",
        r"[^\W1]",
        "{",
        "]",
    ),
    *("[k-s]", "[^k]", "[A-Z]", r"\b", "^", "$", "(?:ab)", "(a|b)", "[-a]", "[a-]", r"[\]^]"),
)
SUBJECTS = (
    *("", "a", "b", "ab", "ba", "aab", "A", "K", "k", "\u212a", "s", "S", "ſ", "é", "É", "σ", "ς", "Σ", "ß", "ẞ", "ss"),
    *(
        "_",
        "-",
        "1",
        "a1",
        " ",
        "a b",
        "a\n",
        "\na",
        "a\nb",
        "\t",
        "\v",
        "\u00a0",
        ".",
        "{",
        "]",
        "^",
        "i",
        "İ",
        "ı",
        "ab-k",
    ),
    *("\U0001f600", "a\U0001f600b", "é1", "1é", "kS_"),
)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    parts = []
    for atom in draw(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=4)):
        repeated = atom not in ("^", "$", r"\b", "{")
        parts.append(atom + (draw(st.sampled_from(("", "", "", "*", "+?", "?", "{2}", "{0,2}"))) if repeated else ""))
    joined = "".join(parts)
    return f"{joined}|{draw(st.sampled_from(ATOMS))}" if draw(st.integers(1, 5)) == 1 else joined


def pattern_question() -> Question:
    """Hundreds of patterns of the subset, with and without case, on every subject; RE2 itself tells what is right."""
    drawn: dict[str, None] = {}

    @settings(max_examples=400, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    @given(patterns(), st.booleans())
    def draw(pattern: str, ignore_case: bool) -> None:
        if pattern_problem(pattern) is None:
            drawn["(?i)" * ignore_case + pattern] = None

    draw()
    feature = FeatureRef("u", "text")
    segments = {
        f"p{number}": Segment(f"p{number}", Predicate(feature, "matches", pattern, STRING, pattern.startswith("(?i)")))
        for number, pattern in enumerate(drawn)
    }
    return Question(Program(segments), list(segments), [Inputs({"u:text": text}) for text in SUBJECTS], now=0)


def check_patterns(question: Question, answers: list[dict[str, bool | None]]) -> None:
    wrong = []
    for text, answer in zip(SUBJECTS, answers, strict=True):
        for name in question.segments:
            pattern = question.program.segment(name).when.argument  # type: ignore[union-attr]
            if answer[name] is not (compile_pattern(pattern).search(text) is not None):
                wrong.append((pattern, text, answer[name]))
    assert not wrong


def test_patterns_are_spread() -> None:
    question = pattern_question()
    answers = [answer for row in expected(question) for answer in row.values()]
    assert len(question.segments) > 250
    assert 0.1 < answers.count(True) / len(answers) < 0.9


def test_patterns_on_postgres(postgres: Path) -> None:
    question = pattern_question()
    (answers,) = ask_postgres(postgres, [question])
    check_patterns(question, answers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_patterns_on_spark(spark: Any) -> None:
    question = pattern_question()
    (answers,) = ask_spark(spark, [question])
    check_patterns(question, answers)
