"""The command line as a process, on a project that `segments init` made, with the real embedded server.

Opening Feast takes seconds, so one project serves all tests; those that change definitions work on a copy of it.
"""

from __future__ import annotations

import codecs
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from rules_engine import SegmentClient
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from tests.e2e.conftest import check_parity

NOW = datetime(2026, 2, 1, tzinfo=UTC)
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rules_engine", *map(str, arguments)]


def segments(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line, with pipes for output."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return done


def good(*arguments: object, cwd: Path | None = None) -> str:
    """The output of a command that must succeed, and must have nothing to remark: no warning of any library."""
    done = segments(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def without_store(*arguments: object) -> str:
    """The output of an apply in a copied project, whose store holds nothing of its views: it says so, and succeeds."""
    done = segments(*arguments)
    assert done.returncode == 0, done.stderr
    assert "the online store holds nothing of" in done.stderr
    assert "run `segments materialize`" in done.stderr
    return done.stdout


def bad(*arguments: object) -> str:
    """The message of a command that must fail."""
    done = segments(*arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


@dataclass(frozen=True)
class Shop:
    """The project, and what the commands said that brought it about."""

    root: Path
    init: str
    apply: str
    materialize: str


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shops")
    root = folder / "My-Shop"
    try:
        yield Shop(
            root,
            good("init", "My-Shop", cwd=folder),
            good("apply", cwd=root),
            good("materialize", "--repo", root),
        )
    finally:
        EmbeddedStore(root).stop()


@pytest.fixture
def copy(shop: Shop, tmp_path: Path) -> Path:
    """The project with its registry and read plan, without its store."""
    root = tmp_path / "copy"
    shutil.copytree(shop.root, root, ignore=shutil.ignore_patterns("store"))
    return root


# --- a new project --------------------------------------------------------------------------------------------------


def test_a_new_project_works_at_once(shop: Shop) -> None:
    assert shop.init.startswith("Made the project My-Shop in ")
    assert shop.apply.splitlines() == [
        "Applied my_shop: 3 segments, 2 feature views",
        "  1. bring Feast's registry up to date: features added: orders, profile",
        "  2. keep it as version 1",
        "  3. put it into effect: segments added: lapsed, vip, welcome; triggers added: come_back",
        "  4. let the workers evaluate everyone again by lapsed, vip, welcome",
        "Next: `segments materialize` brings the online store up to date",
    ]
    lines = shop.materialize.splitlines()
    assert re.match(r"view +rows +seconds +from +why from there$", lines[0])
    assert re.match(r"orders +200 +[0-9.]+ +the first row +first run$", lines[1])
    assert re.match(r"Materialized 400 rows up to 2026-02-01T00:00:00Z in [0-9.]+ s$", lines[3])
    assert good("validate", "--repo", shop.root) == "ok: 3 segments and 1 trigger in 5 files, and 4 test files\n"
    assert good("test", "--repo", shop.root) == "ok: 9 cases in 4 test files\n"
    check_parity(shop.root)


def test_characters_that_the_eye_misses_are_named_with_their_place(copy: Path) -> None:
    text = "segment: pasted\nwhen: {feature: profile:country, in: [NO\u200b, SE]}\n"
    (copy / "segments/pasted.yaml").write_text(text, encoding="utf-8")
    done = segments("validate", "--repo", copy)
    assert done.returncode == 0, done.stderr
    assert "segments/pasted.yaml:2:41: warning[invisible-character]: there is a zero width space (U+200B) here" in (
        done.stdout + done.stderr
    )


def test_files_of_a_new_project_tell_the_editor_its_schema(shop: Shop) -> None:
    schema = json.loads((shop.root / ".segments" / "schema.json").read_text())
    assert "orders:spend_30d" in json.dumps(schema)
    for path in (shop.root / "segments").glob("*.yaml"):
        if not path.name.endswith(".test.yaml"):
            assert path.read_text().startswith("# yaml-language-server: $schema=../.segments/schema.json\n")


def test_what_the_readme_says_to_type_can_be_typed(shop: Shop) -> None:
    readme = (shop.root / "README.md").read_text()
    lines = [line.split("#")[0].split() for line in readme.splitlines() if line.startswith("segments ")]
    assert [line[1] for line in lines] == ["validate", "test", "apply", "materialize", "lookup", "explain"]
    for line in lines[-2:]:
        assert good(*line[1:], cwd=shop.root)


def test_init_overwrites_nothing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    mine = tmp_path / "segments" / "vip.yaml"
    mine.write_text("mine")
    assert "already has `segments/vip.yaml`" in bad("init", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine"
    assert "already has `.gitignore`, `README.md`" in bad("init", shop.root)
    assert "`2026` gives no project name" in bad("init", tmp_path / "2026")


def test_commands_that_change_nothing_do_not_open_feast(shop: Shop) -> None:
    """The catalog of an unchanged repository is remembered."""
    program = """
import sys
from rules_engine.cli.start import main
try:
    main(sys.argv[1:])
finally:
    assert "feast" not in sys.modules and "pandas" not in sys.modules
"""
    for name in (
        ["validate"],
        ["test"],
        ["schema"],
        ["lookup", "c001"],
        ["explain", "c001", "vip"],
        ["store", "status"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *name, "--repo", shop.root], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


# --- answers --------------------------------------------------------------------------------------------------------


def test_lookups_agree_with_pandas_for_every_customer(shop: Shop) -> None:
    data = shop.root / "feature_repo" / "data"
    customers = pd.read_parquet(data / "profile.parquet").merge(
        pd.read_parquet(data / "orders.parquet"), on=["customer_id", "event_timestamp"]
    )
    vip = (customers.orders_30d >= 3) & (customers.spend_30d >= 200)
    age = NOW - customers.signed_up
    nordic = customers.country.isin(["DK", "FI", "IS", "NO", "SE"])
    expected = pd.DataFrame(
        {
            "vip": vip,
            "welcome": nordic & (age >= timedelta(0)) & (age < timedelta(days=14)) & customers.newsletter & ~vip,
            "lapsed": customers.last_order.notna() & ~(customers.last_order > NOW - timedelta(days=60)),
        }
    )
    assert expected.sum().min() > 10
    assert expected.sum().max() < 100
    with SegmentClient.from_repo(shop.root) as client:
        found = client.lookup_many([*customers.customer_id])
    for membership, (_, row) in zip(found, expected.iterrows(), strict=True):
        assert membership.segments == {name for name in expected if row[name]}, membership.entity


def test_lookup_prints_the_segments_and_json_the_same(shop: Shop) -> None:
    with SegmentClient.from_repo(shop.root) as client:
        found = client.lookup("c001")
    assert found.segments == {"vip"}
    text = good("lookup", "c001", "--repo", shop.root).splitlines()
    assert text[0].startswith("c001 is in 1 of 3 segments at 2026-02-01T00:00:00Z, until 2026-")
    assert text[1:] == ["  vip  Customers who buy often and spend much"]
    assert json.loads(good("lookup", "c001", "--repo", shop.root, "--format", "json")) == found.to_dict()


def test_lookup_can_be_asked_about_one_segment_at_another_instant(shop: Shop) -> None:
    asked = ["lookup", "c001", "--segment", "vip", "--at", "2026-02-10T00:00:00Z", "--repo", shop.root]
    assert good(*asked) == "c001 is in none of 1 segment at 2026-02-10T00:00:00Z\n"  # the numbers are too old by then
    assert "there is no segment `vpi`\n  hint: did you mean `vip`?" in bad(
        "lookup", "c001", "--segment", "vpi", "--repo", shop.root
    )


def test_a_user_who_does_not_exist_is_in_no_segment_and_that_is_no_error(shop: Shop) -> None:
    assert good("lookup", "nobody", "--repo", shop.root).splitlines() == [
        "nobody is in none of 3 segments at 2026-02-01T00:00:00Z",
        "  the store knows nothing of nobody",
    ]
    text = good("explain", "nobody", "lapsed", "--repo", shop.root)
    assert text.startswith("nobody is not known to be in lapsed")
    assert "missing: absent" in text


def test_explain_prints_a_tree_and_json(shop: Shop) -> None:
    text = good("explain", "c001", "vip", "--repo", shop.root)
    assert text.startswith("c001 is in vip at 2026-02-01T00:00:00Z")
    assert "true: orders:orders_30d at_least 3 (is " in text
    explained = json.loads(good("explain", "c001", "vip", "--repo", shop.root, "--format", "json"))
    assert (explained["entity"], explained["verdict"]) == ("c001", True)


def test_a_folder_that_holds_only_what_was_applied_answers_requests(shop: Shop, tmp_path: Path) -> None:
    address = EmbeddedStore(shop.root).connection_string
    plan = {**vars(ReadPlan.load(Project(shop.root).read_plan)), "connection": Connection("redis", address)}
    ReadPlan(**plan).save(Project(tmp_path).read_plan)
    for question in (["lookup", "c001"], ["explain", "c001", "vip"]):
        assert good(*question, "--repo", tmp_path) == good(*question, "--repo", shop.root)
    assert "is no project" in bad("lookup", "c001", "--repo", tmp_path / ".segments")


def test_sql_is_printed_for_an_instant(shop: Shop) -> None:
    text = good("sql", "vip", "--dialect", "spark", "--repo", shop.root)
    assert text.startswith("-- Segments as of 2026-02-01T00:00:00Z, in spark")
    assert "`orders:orders_30d` >= 3" in text


# --- changes --------------------------------------------------------------------------------------------------------


def test_applying_says_what_changed(copy: Path) -> None:
    for name in ("lapsed", "come_back"):
        (copy / "segments" / f"{name}.yaml").unlink()
        (copy / "segments" / f"{name}.test.yaml").unlink()
    vip = copy / "segments" / "vip.yaml"
    vip.write_text(vip.read_text().replace("200", "300"))
    (copy / "segments" / "silent.yaml").write_text(
        "segment: silent\nwhen: {not: {feature: profile:newsletter, equals: true}}"
    )
    plan = json.loads(good("plan", "--repo", copy, "--format", "json"))
    stages = [
        "  1. bring Feast's registry up to date: features changed: orders, profile",  # the copy's data is elsewhere
        "  2. keep it as version 2",
        (
            "  3. put it into effect: segments added: silent; segments changed: vip; segments removed: lapsed; "
            "triggers removed: come_back"
        ),
        "  4. let the workers evaluate everyone again by silent, vip, welcome",
    ]
    assert good("plan", "--repo", copy, "--examples", 0).splitlines()[-5:] == [
        f"`segments apply` will, as plan {plan['plan']}",
        *stages,
    ]
    assert f"this is plan {plan['plan']}, and plan 123 was" in bad("apply", "--repo", copy, "--expect", "123")
    assert without_store("apply", "--repo", copy, "--expect", plan["plan"]).splitlines() == [
        "Applied my_shop: 3 segments, 2 feature views",
        *stages,
        "Next: `segments materialize` brings the online store up to date",
    ]
    schema = (copy / ".segments" / "schema.json").read_text()
    assert '"silent"' in schema
    assert '"lapsed"' not in schema
    again = json.loads(without_store("apply", "--repo", copy, "--format", "json"))
    nothing: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    assert (again["changed"], again["segments"], again["features"]) == (False, nothing, nothing)


BROKEN = """\
segment: vip
when:
  all:
    - {feature: orders:spent_30d, at_least: 200}
    - {feature: profile:country, at_leest: 5}
---
segment: other
when: {any: [}
"""


def test_broken_definitions_are_shown_at_their_places_and_change_nothing(copy: Path) -> None:
    before = ReadPlan.load(Project(copy).read_plan)
    (copy / "segments" / "vip.yaml").write_text(BROKEN)
    done = segments("validate", "--repo", copy)
    assert (done.returncode, done.stderr) == (1, "")
    assert "segments/vip.yaml:4:17: error[unknown-feature]: there is no feature `orders:spent_30d`" in done.stdout
    assert "    4 |     - {feature: orders:spent_30d, at_least: 200}\n      |                 ^^^" in done.stdout
    assert "  hint: did you mean `orders:spend_30d`?" in done.stdout
    assert "segments/vip.yaml:5:34: error[unknown-operator]" in done.stdout
    assert "segments/vip.yaml:8:14: error[yaml-syntax]" in done.stdout
    assert done.stdout.endswith("errors\n")
    data = json.loads(segments("validate", "--repo", copy, "--format", "json").stdout)
    assert data["ok"] is False
    assert {"file": "segments/vip.yaml", "line": 4, "column": 17}.items() <= data["problems"][0].items()
    assert "error[unknown-feature]" in bad("test", "--repo", copy)
    assert "error[unknown-feature]" in bad("apply", "--repo", copy)
    assert ReadPlan.load(Project(copy).read_plan) == before


def test_a_failing_test_is_shown_with_why(copy: Path) -> None:
    case = "name: too many, features: {orders:orders_30d: 2, orders:spend_30d: 9}, expect: true"
    cases = f"test: vip\ncases:\n  - {{{case}}}"
    (copy / "segments" / "vip.test.yaml").write_text(cases)
    (copy / "segments" / "lapsed.test.yaml").unlink()
    done = segments("test", "--repo", copy)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("failed segments/vip.test.yaml:3:12: vip: too many\n")
    assert "expected true, got false" in done.stdout
    assert "orders:orders_30d at_least 3 (is 2; short by 1" in done.stdout
    assert done.stdout.endswith("1 of 5 cases failed\nwithout a test: `lapsed`\n")
    assert good("test", "welcome", "--repo", copy) == "ok: 2 cases\n"
    data = json.loads(segments("test", "--repo", copy, "--format", "json").stdout)
    assert (data["cases"], data["untested"], len(data["failures"])) == (5, ["lapsed"], 1)


def test_a_feature_repository_that_does_not_import_is_shown(copy: Path) -> None:
    features = copy / "feature_repo" / "features.py"
    features.write_text(features.read_text() + "\nimport nowhere_to_be_found\n")
    assert "No module named 'nowhere_to_be_found'" in bad("validate", "--repo", copy)


# --- the store ------------------------------------------------------------------------------------------------------


def test_the_store_stops_and_starts_when_it_is_needed(shop: Shop) -> None:
    assert good("store", "stop", "--repo", shop.root) == "Stopped the store\n"
    assert good("store", "stop", "--repo", shop.root) == "The store did not run\n"
    assert good("store", "status", "--repo", shop.root).startswith("stopped: it starts when it is needed\n")
    assert good("lookup", "c001", "--repo", shop.root).startswith("c001 is in 1 of 3 segments")
    status = json.loads(good("store", "status", "--repo", shop.root, "--format", "json"))
    assert (status["running"], status["keys"]) == (
        True,
        202,
    )  # with what the workers are to look at, and what the store holds
    assert good("store", "start", "--repo", shop.root).startswith("The store runs at ")


def test_a_store_that_is_down_is_a_clear_error(copy: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    yaml = copy / "feature_repo" / "feature_store.yaml"
    text = yaml.read_text().split("\nonline_store:")[0]
    yaml.write_text(f'{text}\nonline_store: {{type: redis, connection_string: "{address}"}}\n')
    plan = Project(copy).read_plan
    ReadPlan(**{**vars(ReadPlan.load(plan)), "connection": Connection("redis", address)}).save(plan)
    for asked in (["lookup", "c001"], ["materialize"]):
        said = bad(*asked, "--repo", copy)
        assert said.startswith(f"error: cannot reach the online store at {address}: "), asked
        assert "hint: is the server up" in said
    assert "is not the embedded one, but `redis`" in bad("store", "status", "--repo", copy)


# --- terminals ------------------------------------------------------------------------------------------------------


class Terminal:
    """A process with a terminal for its input and output."""

    def __init__(self, *arguments: object) -> None:
        self.main, inner = pty.openpty()
        self.process = subprocess.Popen(
            command(*arguments), stdin=inner, stdout=inner, stderr=inner, env=ENVIRONMENT | {"TERM": "xterm-256color"}
        )
        os.close(inner)
        self.output = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # what is read may end within a letter

    def read_until(self, text: str | None, seconds: float = 60) -> str:
        """Everything up to a text, or to the end."""
        deadline = time.monotonic() + seconds
        while text is None or text not in self.output:
            assert time.monotonic() < deadline, self.output
            if select.select([self.main], [], [], 0.2)[0]:
                try:
                    self.output += self._decoder.decode(os.read(self.main, 65536))
                except OSError:  # the process closed its end
                    assert text is None, self.output
                    break
        return self.output

    def end(self) -> int:
        self.read_until(None)
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """End the process if it still runs, as it does when a test fails."""
        self.process.kill()
        self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start a command in a terminal."""
    with ExitStack() as begun:

        def begin(*arguments: object) -> Terminal:
            made = Terminal(*arguments)
            begun.callback(made.close)
            return made

        yield begin


def test_a_terminal_gets_colours_and_a_pipe_does_not(shop: Shop, terminal: Callable[..., Terminal]) -> None:
    explained = terminal("explain", "c001", "vip", "--repo", shop.root)
    assert explained.end() == 0
    assert "\x1b[32mtrue\x1b[0m" in explained.output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", explained.output).replace("\r\n", "\n")
    assert plain == good("explain", "c001", "vip", "--repo", shop.root)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_materialize_ends_cleanly(shop: Shop, terminal: Callable[..., Terminal]) -> None:
    materialize = terminal("materialize", "--full", "--repo", shop.root)
    materialize.read_until("Opening the feature repository")
    materialize.process.send_signal(signal.SIGINT)
    assert materialize.end() == 130
    assert materialize.output.endswith("\x1b[?25hinterrupted\r\n")  # and the cursor is back
    assert "Traceback" not in materialize.output
