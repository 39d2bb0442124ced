"""Ctrl-C at any instant of a command: one sentence, exit code 130, and nothing half done.

A ``sitecustomize`` in the process of the command sends the signal at an exact point: when a module is imported, where
the exception is lost, or while Python ends.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import agreeing

INTERRUPTED = (130, "interrupted\n")

#: ``INTERRUPT_AT`` is the module whose import is interrupted, or "atexit"; ``INTERRUPT_HOW`` where the signal comes.
CUSTOMIZE = """
import atexit, os, signal, sys, weakref

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):  # Python looks for signals between its instructions
        pass

class Thing:
    pass

def told():  # from here on somebody else sends it
    os.write(int(os.environ["INTERRUPT_TELL"]), b".")

def plainly():
    interrupt()

def in_a_callback():  # whose exceptions Python drops
    thing = Thing()
    dropped = weakref.ref(thing, interrupt)
    del thing

def as_an_import_error():  # as a library in C makes of it
    try:
        interrupt()
    except KeyboardInterrupt:
        raise ImportError("numpy.core.multiarray failed to import") from None

def swallowed():
    try:
        interrupt()
    except:
        pass

def kept():  # so that it looks as if it were on its way for ever
    try:
        interrupt()
    except BaseException as error:
        sys.kept = error

def twice():
    try:
        interrupt()
    finally:
        interrupt()

class Finder:
    def find_spec(self, name, path, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            globals()[os.environ["INTERRUPT_HOW"]]()

if os.environ["INTERRUPT_AT"] == "atexit":
    atexit.register(interrupt)
elif os.environ["INTERRUPT_AT"] == "threads":
    import threading
    threading._register_atexit(interrupt)
else:
    sys.meta_path.insert(0, Finder())
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rules_engine", *map(str, arguments)]


def segments(*arguments: object, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=os.environ | variables, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


pytestmark = pytest.mark.usefixtures("interruptible")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("shops") / "shop"
    assert segments("init", root)[0] == 0
    with agreeing(root):
        assert segments("apply", "--repo", root)[0] == 0
        yield root


@pytest.fixture(scope="module")
def customized(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The value of ``PYTHONPATH`` with which a command interrupts itself."""
    folder = tmp_path_factory.mktemp("customized")
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)


@pytest.mark.parametrize(
    ("module", "how"),
    [
        ("rules_engine.cli.main", "plainly"),
        ("typer", "plainly"),
        ("typer", "in_a_callback"),
        ("typer", "twice"),
        ("rules_engine.cli.materialize", "as_an_import_error"),
        ("feast", "in_a_callback"),
        ("feast", "swallowed"),
        ("feast", "kept"),
        ("feast.entity", "twice"),
        ("pyarrow.lib", "as_an_import_error"),
        ("pyarrow.lib", "plainly"),
    ],
)
def test_an_import_may_lose_the_interrupt_and_the_command_ends(
    shop: Path, customized: str, module: str, how: str
) -> None:
    code, out, said = segments(
        "materialize", "--full", "--repo", shop, PYTHONPATH=customized, INTERRUPT_AT=module, INTERRUPT_HOW=how
    )
    assert (code, said) == INTERRUPTED
    if how != "kept":
        assert out == ""


@pytest.mark.parametrize("at", ["atexit", "threads"])
def test_once_the_work_is_done_an_interrupt_changes_nothing(shop: Path, customized: str, at: str) -> None:
    for asked in (["validate"], ["materialize", "--full"]):
        code, out, said = segments(*asked, "--repo", shop, PYTHONPATH=customized, INTERRUPT_AT=at)
        assert (code, said) == (0, "")
        assert out


def test_a_command_whose_shell_ignores_interrupts_goes_on(shop: Path, customized: str) -> None:
    """As one that was started with `nohup` or behind a script."""
    behind = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", behind, *command("validate", "--repo", shop)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": customized, "INTERRUPT_AT": "typer", "INTERRUPT_HOW": "plainly"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def begun(customized: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command in whose process the first line of ours has run; before that Python itself answers Ctrl-C."""
    reads, writes = os.pipe()
    environment = {
        "PYTHONPATH": customized,
        "INTERRUPT_AT": "rules_engine.cli.main",
        "INTERRUPT_HOW": "told",
        "INTERRUPT_TELL": str(writes),
    }
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        pass_fds=[writes],
    ) as process:
        os.close(writes)
        assert os.read(reads, 1) == b"."
        os.close(reads)
        yield process


def test_a_worker_ends_its_work_and_says_what_it_did(shop: Path) -> None:
    with subprocess.Popen(
        command("run", "--repo", shop), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stderr is not None
        assert worker.stderr.readline() == "working; Ctrl-C ends it\n"
        worker.send_signal(signal.SIGINT)
        out, said = worker.communicate(timeout=60)
    assert (worker.returncode, said) == (0, "")
    assert out.startswith("Took 0 events")


@pytest.mark.slow
@pytest.mark.parametrize("asked", [["validate"], ["materialize", "--full"], ["evaluate"], ["apply"], ["plan"]])
def test_a_command_can_be_interrupted_at_any_instant(shop: Path, customized: str, asked: list[str]) -> None:
    with begun(customized, *asked, "--repo", shop) as process:
        start = time.monotonic()
        whole, said = process.communicate(timeout=120)
        took = time.monotonic() - start
    assert (process.returncode, said) == (0, "")
    for _ in range(5):
        with begun(customized, *asked, "--repo", shop) as process:
            time.sleep(delay := random.uniform(0, took))
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=120)
        if process.returncode == 0:  # it was done already
            assert (len(out.splitlines()), said) == (len(whole.splitlines()), ""), delay
        else:
            assert (process.returncode, said) == INTERRUPTED, delay
    assert segments(*asked, "--repo", shop)[0] == 0


#: A command whose query takes an hour, and which makes an error of its own of whatever goes wrong there.
SLOW = """
import duckdb, typer
from rules_engine.cli import commands, main, start
from rules_engine.errors import ProjectError

def lookup():
    print("begun", flush=True)
    try:
        duckdb.sql("SELECT sum(hash(a.range + b.range)) FROM range(100000000) a, range(1000) b").fetchall()
    except Exception as error:
        raise ProjectError(f"the log cannot be read: {error}") from None

app = typer.Typer(add_completion=False)
app.command("lookup")(lookup)
commands.load = lambda entry: typer.main.get_command(app)
start.main(["lookup"])
"""


def test_what_a_library_makes_of_an_interrupt_is_said_to_be_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)  # DuckDB itself would work on while its connection is closed
    assert (process.returncode, said) == INTERRUPTED
