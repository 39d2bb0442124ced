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
from pathlib import Path

import pytest

from rules_engine.redis.embedded import EmbeddedStore

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


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("shops") / "shop"
    try:
        assert segments("init", root)[0] == 0
        assert segments("apply", "--repo", root)[0] == 0
        yield root
    finally:
        EmbeddedStore(root).stop()


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


@pytest.mark.parametrize("asked", [["validate"], ["materialize", "--full"], ["evaluate"], ["apply"], ["plan"]])
def test_a_command_can_be_interrupted_at_any_instant(shop: Path, asked: list[str]) -> None:
    """At instants that nobody chose; before the first line of ours is run there is nothing to be done."""
    begun = time.monotonic()
    code, whole, _ = segments(*asked, "--repo", shop)
    took = time.monotonic() - begun
    assert code == 0
    for _ in range(6):
        process = subprocess.Popen(
            command(*asked, "--repo", shop), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(random.uniform(0.15, took * 1.1))
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
        if process.returncode == 0:
            assert (len(out.splitlines()), said) == (len(whole.splitlines()), "")
        else:
            assert (process.returncode, said) == INTERRUPTED
    assert segments(*asked, "--repo", shop)[0] == 0
