"""A new kind of sink is one file: incomplete ones are refused by name, and packages bring their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from rules_engine.deploy.new_project import new_project
from rules_engine.sinks import Message, Outcome, Sink, SinkSettings, sink_kinds, text
from rules_engine.sinks import kinds as own_kinds
from tests.docs_pages import ROOT, blocks

# --- declarations that are not complete -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Good(SinkSettings):
    """A sink of this test."""

    to: str = field(metadata=text("Where to."))


@dataclass(frozen=True)
class WithoutDocstring(SinkSettings):
    to: str = field(metadata=text("Where to."))


@dataclass(frozen=True)
class Undeclared(SinkSettings):
    """A sink of this test."""

    to: str = field(metadata=text("Where to."))
    other: str = "x"


@dataclass(frozen=True)
class WithoutSettings(SinkSettings):
    """A sink of this test."""


@dataclass(frozen=True)
class FirstIsOptional(SinkSettings):
    """A sink of this test."""

    to: str = field(default="x", metadata=text("Where to."))


class NoDataclass(SinkSettings):
    """A sink of this test."""


@dataclass(frozen=True)
class OfAnother(SinkSettings):
    """A sink of this test."""

    to: str = field(metadata=text("Where to."))
    kind = "other"


def opening(self: Any, settings: Any, root: Path) -> None: ...


def sending(self: Any, actions: Any) -> list[Outcome]:
    return []


@pytest.mark.parametrize(
    ("kind", "settings", "methods", "missing"),
    [
        ("pigeon", Good, {"__init__": opening}, "it has no `send`"),
        ("pigeon", Good, {"send": sending}, "it has no `__init__`"),
        ("pigeon", WithoutDocstring, {}, "no docstring"),
        ("pigeon", Undeclared, {}, "the setting `other` is not declared"),
        ("pigeon", WithoutSettings, {}, "no first one without a default, which is what is written after `pigeon:`"),
        ("pigeon", FirstIsOptional, {}, "no first one without a default"),
        ("pigeon", NoDataclass, {}, "no dataclass of their own"),
        ("pigeon", OfAnother, {}, "those of `other` already"),
        ("Pigeon", Good, {}, "small letters"),
        ("stream", Good, {}, "not `stream`"),
    ],
)
def test_an_incomplete_sink_is_refused_by_name(
    kind: str, settings: type, methods: dict[str, Any], missing: str
) -> None:
    with pytest.raises(TypeError, match=f"the sink `{kind}` .*Pigeon.* is incomplete") as caught:
        type(Sink)("Pigeon", (Sink,), {"__module__": __name__, **methods}, kind=kind, settings=settings)
    assert missing in str(caught.value)


def test_a_complete_sink_is_not_refused() -> None:
    class Pigeon(Sink, kind="pigeon", settings=Good):
        def __init__(self, settings: Good, root: Path) -> None: ...

        def send(self, actions: Any) -> list[Outcome]:
            return []

    assert list(Good.settings()) == ["pigeon", "give_up_after"]
    assert str(Good("coop", "home")) == "pigeon:coop"
    assert Good.decode(Good("coop", "home").encode()) == Good("coop", "home")
    with pytest.raises(ValueError, match="pigeon"):
        Good.decode({"name": "coop", "from": "home"})
    assert Message is not None


# --- a kind as a file of this repository ----------------------------------------------------------------------------

NEW_KIND = '''\
"""A sink that counts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules_engine.sinks import DELIVERED, Message, Outcome, Sink, SinkSettings, text


@dataclass(frozen=True)
class TallySettings(SinkSettings):
    """A file that holds how many actions there were."""

    path: str = field(metadata=text("The file."))


class TallySink(Sink, kind="tally", settings=TallySettings):
    """Counts actions."""

    def __init__(self, settings: TallySettings, root: Path) -> None:
        self._path = root / settings.path

    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        before = int(self._path.read_text()) if self._path.exists() else 0
        self._path.write_text(str(before + len(actions)))
        return [DELIVERED] * len(actions)
'''


@pytest.fixture
def new_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of kinds with one more file in it, as if it had been written there."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    monkeypatch.setattr(own_kinds, "__path__", [*own_kinds.__path__, str(folder)])
    sink_kinds.cache_clear()
    yield folder / "tally.py"
    sys.modules.pop(f"{own_kinds.__name__}.tally", None)
    sink_kinds.cache_clear()


def test_a_file_is_all_that_a_kind_needs(new_kind: Path) -> None:
    new_kind.write_text(NEW_KIND)
    assert set(sink_kinds()) == {"file", "kafka", "tally", "webhook"}


def test_a_file_that_holds_no_sink_of_its_name_is_refused(new_kind: Path) -> None:
    new_kind.write_text(NEW_KIND.replace('kind="tally"', 'kind="count"'))
    with pytest.raises(TypeError, match=r"kinds\.tally has to hold one sink, of the kind `tally`"):
        sink_kinds()


# --- a package ------------------------------------------------------------------------------------------------------

EVENTS = "events:\n  purchase: {retention: 30d, properties: {amount: {type: number}}}\n"
VIP = "segment: vip\nwhen: {did: purchase, within: 30d}\n"

DELIVER = """
import sys
from pathlib import Path
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.rules.settings.codec import decode_sinks
from rules_engine.sinks.base import open_sink
from rules_engine.triggers.actions import Action

text = Path(sys.argv[1]).read_text() + "---\\nsegment: vip\\nwhen: {feature: user:age, at_least: 3}\\n"
settings = load_text(text, Catalog(closed=False)).settings.sinks["audit"]
stored = decode_sinks({"sinks": {"audit": settings.encode()}})["audit"]
assert stored == settings, stored
sink = open_sink(stored, Path("."))
print([outcome.code for outcome in sink.send([Action("k1", str(settings), "greet", "42", "enter", 0)])])
sink.close()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of docs/sinks.md, built to a wheel and installed into a folder."""
    source, installed = tmp_path_factory.mktemp("segments_datagram"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "segments_datagram.py"):
        [shown] = [block for block in blocks(ROOT / "docs/sinks.md") if block.text.startswith(f"# {name}")]
        (source / name).write_text(shown.text)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (source / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    return installed


def run(installed: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{installed}"} | variables
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)


def definitions() -> str:
    [shown] = [block for block in blocks(ROOT / "docs/sinks.md") if block.info == "yml"]
    return shown.text


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project with the definitions of docs/sinks.md."""
    root = tmp_path / "shop"
    new_project(root)
    for path in (root / "segments").rglob("*.yaml"):
        path.unlink()
    (root / "feature_repo/events.yaml").write_text(EVENTS)
    (root / "segments/vip.yaml").write_text(VIP)
    (root / "segments/project.yaml").write_text(definitions())
    return root


def test_a_package_brings_a_sink(package: Path, project: Path) -> None:
    command = ("-m", "rules_engine")
    done = run(package, *command, "validate", "--repo", str(project))
    assert done.returncode == 0, done.stdout + done.stderr

    # The editor's schema offers its settings, with what they are for.
    schema_file = project / "schema.json"
    done = run(package, *command, "schema", "--repo", str(project), "--output", str(schema_file))
    assert done.returncode == 0, done.stdout + done.stderr
    offered = orjson.loads(schema_file.read_bytes())["definitions"]["sinks"]["additionalProperties"]["anyOf"]
    [datagram] = [one for one in offered if "datagram" in one["properties"]]
    assert datagram["description"] == "A program on this machine that listens for datagrams."
    assert list(datagram["properties"]) == ["datagram", "token", "give_up_after"]

    # Its checks are made where everything is checked.
    wrong = definitions().replace('"9999", token: "${AUDIT_TOKEN}"', "port, token: hunter2, tokn: x")
    (project / "segments/project.yaml").write_text(wrong)
    done = run(package, *command, "validate", "--repo", str(project))
    assert done.returncode == 1
    assert "project.yaml:3:43: error[unknown-key]: `tokn` has no place in `datagram`" in done.stdout + done.stderr
    (project / "segments/project.yaml").write_text(wrong.replace(", tokn: x", ""))
    done = run(package, *command, "validate", "--repo", str(project))
    assert "error[invalid-address]: `port` is no port" in done.stdout + done.stderr
    assert "error[literal-secret]: `token` is spelt out" in done.stdout + done.stderr


def test_a_sink_of_a_package_delivers(package: Path, tmp_path: Path) -> None:
    (tmp_path / "deliver.py").write_text(DELIVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(30)
        (tmp_path / "project.yaml").write_text(definitions().replace("9999", str(listening.getsockname()[1])))
        arguments = (str(tmp_path / "deliver.py"), str(tmp_path / "project.yaml"))
        done = run(package, *arguments, AUDIT_TOKEN="s3cr3t")
        assert (done.returncode, done.stdout) == (0, "['ok']\n"), done.stderr
        assert listening.recv(65_536).startswith(b's3cr3t{"key":"k1"')
    done = run(package, *arguments, AUDIT_TOKEN="s3cr3t\n")
    assert "the sink `audit` uses ${AUDIT_TOKEN}, whose value ends with a line break" in done.stderr
    assert "s3cr3t" not in done.stderr


def test_without_the_package_its_sink_is_unknown(project: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "rules_engine", "validate", "--repo", str(project))
    assert done.returncode == 1
    assert "error[missing-key]: a sink needs one of `file`, `kafka`, `webhook`" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    def send(", "    def sent("), "is incomplete: it has no `send`"),
        (("import socket\n", "import no_such_package\n"), "ModuleNotFoundError: No module named 'no_such_package'"),
        (('kind="datagram"', 'kind="packet"'), "is no sink of the kind `datagram`"),
    ],
    ids=["incomplete", "broken", "of another kind"],
)
def test_a_package_with_a_flaw_is_one_sentence(
    change: tuple[str, str], said: str, package: Path, project: Path, tmp_path: Path
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    for path in package.rglob("*"):
        if path.is_file():
            copy = installed / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes().replace(*(text.encode() for text in change)))
    done = run(installed, "-m", "rules_engine", "validate", "--repo", str(project))
    assert done.returncode == 1
    assert "the sink `datagram` of the package segments-datagram 1.0 cannot be used" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
