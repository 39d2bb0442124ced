"""The commands as a whole: every one has help and docs, none loads what it does not need, all treat errors alike."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from rules_engine.cli import commands, main, reference
from rules_engine.cli.commands import COMMANDS, CommandEntry, load
from rules_engine.cli.common.context import read_context
from rules_engine.cli.sql import Dialect
from rules_engine.errors import SegmentsError
from rules_engine.folders import Project
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.rules.program import Program
from rules_engine.targets.sql import DIALECTS

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"
HEAVY = {"duckdb", "feast", "lifetimes", "matplotlib", "numpy", "pandas", "pyarrow", "redis", "sklearn", "sqlglot"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, list(arguments), prog_name="segments")


def verbs() -> Iterator[tuple[str, Any]]:
    for entry in COMMANDS:
        command = load(entry)
        yield entry.name, command
        for name, verb in getattr(command, "commands", {}).items():
            yield f"{entry.name} {name}", verb


@pytest.mark.parametrize(("path", "command"), [*verbs()], ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_every_option_says_what_it_does(path: str, command: Any) -> None:
    help_text = inspect.cleandoc(command.help)
    assert help_text.splitlines()[0].endswith("."), "the first line is a sentence"
    for parameter in command.params:
        assert parameter.help, f"{path}: {parameter.name} has no help"
    shown = run(*path.split(), "--help")
    assert shown.exit_code == 0
    assert " ".join(help_text.splitlines()[0].split()) in " ".join(shown.stdout.split())


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_says_of_a_command_what_the_command_says(entry: CommandEntry) -> None:
    assert inspect.cleandoc(load(entry).help).splitlines()[0] == entry.help


@pytest.mark.parametrize(("path", "command"), [*verbs()], ids=lambda value: value if isinstance(value, str) else "")
def test_options_that_several_commands_have_are_the_same_everywhere(path: str, command: Any) -> None:
    options = {name: parameter for parameter in command.params for name in parameter.opts}
    if not getattr(command, "commands", {}) and path != "init":
        assert options["--repo"].default == Path()
    if "--format" in options:
        assert options["--format"].default == "text"
    if "--at" in options:
        assert options["--at"].metavar == "INSTANT"


def test_every_module_of_a_command_is_in_the_table() -> None:
    helpers = {
        "cluster_output",
        "commands",
        "context",
        "event_options",
        "interrupts",
        "main",
        "model_output",
        "options",
        "output",
        "reference",
        "start",
        "__init__",
    }
    modules = {path.stem for path in Path(str(commands.__file__)).parent.glob("*.py")}
    assert modules - helpers == {entry.name for entry in COMMANDS}


def test_the_help_shows_every_command_under_its_heading() -> None:
    shown = run("--help").stdout
    for entry in COMMANDS:
        assert f"  {entry.name} " in shown
        assert entry.help in shown
    assert [line for line in shown.splitlines() if line.endswith(":")] == [
        "Options:",
        "Start:",
        "Define:",
        "Run:",
        "Ask:",
    ]


def test_usage_puts_what_may_be_left_out_into_one_pair_of_brackets() -> None:
    assert "segments history [OPTIONS] [ENTITY]\n" in run("history", "--help").stdout
    assert "segments materialize [OPTIONS] [VIEW]...\n" in run("materialize", "--help").stdout
    for name in ("drift", "ingest", "simulate", "sql", "test"):
        assert "[[" not in run(name, "--help").stdout


def test_the_reference_in_the_docs_is_up_to_date() -> None:
    hint = "write it with: python -m rules_engine.cli.reference > docs/cli.md"
    assert DOCS.read_text(encoding="utf-8") == reference.reference(), hint


def test_the_dialects_are_those_of_the_sql_target() -> None:
    assert {dialect.value for dialect in Dialect} == set(DIALECTS)


def test_help_loads_no_command_and_a_command_nothing_heavy() -> None:
    """One process: the help of the group first, then that of every command."""
    program = f"""
import json, sys
sys.argv[0] = "segments"
from rules_engine.cli.commands import COMMANDS, load
from rules_engine.cli.start import main
loaded = []
for arguments in [["--help"], ["lokup"], *([entry.name, "--help"] for entry in COMMANDS)]:
    try:
        main(arguments)
    except SystemExit:
        pass
    tops = {{name.partition(".")[0] for name in sys.modules}}
    ours = [name for name in sys.modules if name.startswith("rules_engine.cli.")]
    loaded.append([arguments, sorted(tops & {HEAVY!r}), ours])
print("\\n" + json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    for arguments, heavy, modules in loaded:
        assert heavy == [], f"{arguments} loads {heavy}"
        if arguments in (["--help"], ["lokup"]):
            assert set(modules) == {
                f"rules_engine.cli.{name}"
                for name in ("commands", "common", "common.output", "interrupts", "main", "start")
            }


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_unknown_command_is_a_usage_error_with_the_nearest() -> None:
    result = run("lokup")
    assert result.exit_code == 2
    assert "Did you mean 'lookup'?" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lookup"], "Missing argument 'ENTITY'"),
        (["lookup", "42", "--at", "yesterday"], "`yesterday` is not an instant: write e.g. `2026-01-31T09:00:00Z`"),
        (["lookup", "42", "--at", "2026-01-31T09:00:00"], "has no offset"),
        (["lookup", "42", "--format", "xml"], "'xml' is not one of 'text', 'json'"),
        (["sql", "vip", "--dialect", "oracle"], "'oracle' is not one of"),
        (["apply", "--frmat", "json"], "No such option: --frmat"),
        (["backtest", "vip"], "Missing option '--from'"),
        (["backtest", "vip", "--from", "2026-01-01T00:00:00Z", "--every", "1month"], "1month"),
        (["backtest", "vip", "--from", "2026-01-01T00:00:00Z", "--plot", "x.jpg"], "`x.jpg` does not end in .png"),
        (["export", "vip"], "give one of the two"),
    ],
)
def test_usage_errors_exit_with_2_and_say_what_is_expected(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("entry", [entry for entry in COMMANDS if entry.name != "init"], ids=lambda entry: entry.name)
def test_a_folder_that_is_no_project_is_an_error_of_every_command(entry: CommandEntry, tmp_path: Path) -> None:
    path = {
        "backtest": ["backtest", "vip", "--from", "2026-01-01T00:00:00Z"],
        "ingest": ["ingest", "x.csv"],
        "export": ["export", "vip", "--out", "vip.csv"],
        "history": ["history", "42"],
        "lookup": ["lookup", "42"],
        "decide": ["decide", "42"],
        "explain": ["explain", "42", "vip"],
        "store": ["store", "status"],
    }
    arguments = path.get(entry.name, [entry.name])
    if entry.name in ("cluster", "model"):
        arguments = [entry.name, "fit"]
    result = run(*arguments, "--repo", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"error: {tmp_path} has no feature_repo/feature_store.yaml, so it is no project",
        "  hint: pass --repo PATH, or make a new project with `segments init NAME`",
    ]


@pytest.mark.parametrize("name", [["lookup", "42"], ["explain", "42", "vip"]])
def test_nothing_applied_yet_is_an_error_that_says_what_to_do(
    name: list[str], make_project: Callable[..., Project]
) -> None:
    result = run(*name, "--repo", str(make_project().root))
    assert result.exit_code == 1
    assert "nothing was applied yet" in result.stderr
    assert "hint: run `segments apply`" in result.stderr


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Result]:
    """Run a command that ends with an exception."""

    def fail(error: BaseException) -> Result:
        def broken() -> None:
            """Fail."""
            raise error

        app = typer.Typer(add_completion=False)
        app.command("lookup")(broken)
        monkeypatch.setattr(commands, "load", lambda entry: typer.main.get_command(app))
        return run("lookup")

    return fail


def test_an_error_is_shown_as_message_and_hint(failing: Callable[[BaseException], Result]) -> None:
    result = failing(SegmentsError("the cup is\x1b[31m empty", hint="fill it"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: the cup is\\x1b[31m empty\n  hint: fill it\n"


def test_an_interrupt_ends_cleanly(failing: Callable[[BaseException], Result]) -> None:
    result = failing(KeyboardInterrupt())
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_an_error_of_ours_is_not_hidden(failing: Callable[[BaseException], Result]) -> None:
    result = failing(ZeroDivisionError())
    assert isinstance(result.exception, ZeroDivisionError)


# --- the context ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("n=5", 5),
        ("n='5'", "5"),
        ("n=5.5", 5.5),
        ("n=NO", "NO"),
        ("n=true", True),
        ("n=null", None),
        ("n=", None),
        ("n=a=b", "a=b"),
        ("n=[a, 1]", ["a", 1]),
        ("n=12:30", "12:30"),
        ("n=2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_context_values_are_read_as_yaml(given: str, expected: object) -> None:
    (value,) = read_context([given], Program({})).values()
    assert (value, type(value)) == (expected, type(expected))


def test_a_context_value_that_is_read_as_a_time_becomes_one() -> None:
    text = "segment: soon\nwhen: {context: departure, in_next: 2h}"
    program = load_text(text, Catalog(closed=False)).program
    (value,) = read_context(["departure=2026-01-01T00:00:00Z"], program).values()
    assert value.isoformat() == "2026-01-01T00:00:00+00:00"
    with pytest.raises(typer.BadParameter, match="`departure`: `soon` is not an instant"):
        read_context(["departure=soon"], program)


@pytest.mark.parametrize("given", ["device", "=mobile", "n=[a", "n=a: b: c", "n=!!python/name:os.system x"])
def test_a_context_that_cannot_be_read_is_a_usage_error(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_context([given], Program({}))


def test_every_command_module_can_be_called_from_python() -> None:
    for entry in COMMANDS:
        module = importlib.import_module(f"rules_engine.cli.{entry.name}")
        for parameter in inspect.signature(getattr(module, entry.name, lambda: None)).parameters.values():
            assert not isinstance(parameter.default, typer.models.ParameterInfo), parameter
