"""What importing may load. The request path and ``segments --help`` stay light: Feast alone takes four seconds.

The list says what is allowed, not what is forbidden, so a new dependency cannot slip in.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"duckdb", "feast", "lifetimes", "matplotlib", "numpy", "pandas", "pyarrow", "sklearn", "sqlglot"}
SERVER = {
    "anyio", "click", "dotenv", "h11", "httptools", "jinja2", "markupsafe", "prometheus_client", "pythonjsonlogger",
    "sniffio", "starlette", "typing_extensions", "uvicorn", "uvloop", "watchfiles", "websockets",
}  # fmt: skip
LIGHT = {"hiredis", "mmh3", "orjson", "re2", "yaml"}
TERMINAL = {
    "annotated_doc",
    "click",
    "markdown_it",
    "mdurl",
    "pygments",
    "rich",
    "shellingham",
    "typer",
    "typing_extensions",
}

# Prints, last, the top-level names of the modules that a statement loads from outside the standard library.
PROGRAM = """
import json, sys
before = set(sys.modules)
try:
    exec(sys.argv.pop(1))
except SystemExit as end:
    assert not end.code, end.code
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(tops - set(sys.stdlib_module_names))))
"""
HELP = "import rules_engine.cli.start as cli; sys.argv = ['segments', '--help']; cli.main()"


def loaded_by(statement: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, statement], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # A compiled part such as `_yaml` or `_re2` belongs to the package that it is named after.
    names = {name.lstrip("_").partition("__")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    # `sysconfigdata` is the standard library's, named after the platform; what Cython compiled brings its runtime.
    # `mp_main` is multiprocessing's second name of the program.
    own = {"rules_engine", "mypyc", "sysconfigdata", "mp_main"}
    return {name for name in names if not name.startswith("cython_")} - own


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import rules_engine", LIGHT),
        ("from rules_engine import SegmentClient, AsyncSegmentClient", LIGHT - {"yaml"}),
        ("import rules_engine.sdk", LIGHT - {"yaml"}),
        ("import rules_engine.testing", LIGHT),
        ("import rules_engine.redis.embedded", set()),
        ("import rules_engine.service.process", LIGHT | SERVER),
        (HELP, LIGHT | TERMINAL),
    ],
)
def test_a_statement_loads_only_what_is_allowed(statement: str, allowed: set[str]) -> None:
    loaded = loaded_by(statement)
    assert loaded <= allowed, f"`{statement}` also loads {sorted(loaded - allowed)}"


@pytest.mark.slow
def test_the_probe_sees_what_is_heavy() -> None:
    assert loaded_by("import rules_engine.features.online_store") >= {"feast", "pandas", "numpy"}
    assert not HEAVY & (LIGHT | TERMINAL | SERVER)
