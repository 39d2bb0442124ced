"""The direct connections to a store that is slow, dies, comes back, or is asked by too many at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from rules_engine.errors import ProjectError, StoreError, StoreTimeoutError, StoreUnavailableError
from rules_engine.features.online.async_reader import AsyncOnlineReader, open_async_reader
from rules_engine.features.online.redis_reader import RedisReader
from rules_engine.features.online.row_layout import Row
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.features.online.transports import ClientTransport, SocketTransport
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.client import Address
from rules_engine.redis.endpoint import RedisEndpoint
from rules_engine.redis.feast_layout import KeyMaker, field_bytes
from rules_engine.redis.sockets import Pool
from rules_engine.redis.store_mark import StoreMark
from rules_engine.redis.valkey import server_binary
from tests.stores import redis_reader

KEY = KeyMaker("shop", "user_id", 3)
SEEN = bytes.fromhex("0880cea4ac06")  # some second of 2023
USERS = 600


#: Seconds that nothing here takes, however busy the machine is, unless it would wait for ever.
PATIENCE = 20.0


def plan_for(address: str) -> ReadPlan:
    view = PlanView("v", "v", (PlanFeature("name", "String", 1), PlanFeature("blob", "Bytes", 2)))
    return ReadPlan("shop", "user", "user_id", 3, Connection("redis", address), (view,))


def varint(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + varint(number >> 7) if number > 0x7F else low


class Server:
    """A real server on a port, which can be killed, stopped for a while, and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._command = [str(server_binary()), "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--dir", str(folder), "--save", "", *options]
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.fill()
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.01)
            else:
                return

    def fill(self) -> None:
        with redis.Redis(port=self.port) as client, client.pipeline(transaction=False) as pipeline:
            for number in range(USERS):
                name = f"user {number}".encode()
                pipeline.hset(KEY(str(number)), mapping={field_bytes(1): b"\x12" + varint(len(name)) + name})
                pipeline.hset(KEY(str(number)), "_ts:v", SEEN)
            pipeline.execute()
            StoreMark(client, "shop").declare(["v"])

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def connections(self) -> int:
        with redis.Redis(port=self.port) as client:
            return len(client.client_list()) - 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.go_on()
    made.kill()


@pytest.fixture
def make_reader(server: Server) -> Iterator[Callable[..., RedisReader]]:
    made: list[RedisReader] = []

    def make(more: str = "", timeout: float | None = None) -> RedisReader:
        made.append(redis_reader(plan_for(server.address + more), Path(), timeout=timeout))
        assert isinstance(made[-1].transport, SocketTransport)
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def is_right(user: str, found: EntityFeatures) -> bool:
    return found.entity == user and found.values == {"v:name": f"user {user}"}


# --- one after the other ---------------------------------------------------------------------------------------------


def test_a_restart_goes_unnoticed(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    reader = make_reader()
    assert is_right("5", reader.read(["5"])[0])
    server.kill()
    server.start()
    assert is_right("6", reader.read(["6"])[0])
    server.kill()
    server.start()
    users = [str(number) for number in range(USERS)]
    assert all(map(is_right, users, reader.read(users)))


def test_while_the_server_is_down_each_request_says_so_at_once(
    server: Server, make_reader: Callable[..., RedisReader]
) -> None:
    reader = make_reader()
    reader.read(["1"])
    server.kill()
    for users in (["1"], ["1", "2"]):
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match=f"cannot reach the online store at {server.address}"):
            reader.read(users)
        assert time.monotonic() - began < PATIENCE
    server.start()
    assert is_right("1", reader.read(["1"])[0])


def test_a_server_that_hangs_is_a_timeout_and_leaves_no_answer_behind(
    server: Server, make_reader: Callable[..., RedisReader]
) -> None:
    reader = make_reader(timeout=0.3)
    reader.read(["1"])
    server.pause()
    for users in (["1"], ["2"], [str(number) for number in range(100)]):
        began = time.monotonic()
        with pytest.raises(StoreTimeoutError, match="did not answer in time"):
            reader.read(users)
        assert 0.25 < time.monotonic() - began < PATIENCE
    server.go_on()
    for number in range(20):
        assert is_right(str(number), reader.read([str(number)])[0])


def test_an_answer_in_drops_is_bounded_by_the_timeout_too() -> None:
    """Each piece comes in time, the whole does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                for byte in b"*3\r\n$1\r\n" + b"x" * 100:
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        reader = redis_reader(plan_for(f"127.0.0.1:{listener.getsockname()[1]}"), Path(), timeout=0.4)
        with pytest.raises(StoreTimeoutError):
            reader.read(["1"])
        assert thread.is_alive(), "it waited for the whole answer"
        reader.close()
        thread.join()


def ask_alone(pool: Pool) -> object:
    return pool.ask(b"PING\r\n")


def ask_together(pool: Pool) -> object:
    answers: list[object] = []
    pool.ask_many([b"PING\r\n"], answers.append)
    return answers[0]


@pytest.mark.parametrize("ask", [ask_alone, ask_together])
@pytest.mark.parametrize("pause", [0.0, 0.0001, 0.05])
def test_an_answer_over_a_unix_socket_is_found_by_looking_for_it_and_by_sleeping(
    tmp_path: Path, pause: float, ask: Callable[[Pool], object]
) -> None:
    """At once, while it is looked for, and long after."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                for number in range(3):
                    connection.recv(1000)
                    time.sleep(pause)
                    connection.sendall(b":%d\r\n" % number)
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                ended.wait()  # and never answers

        ended = threading.Event()
        thread = threading.Thread(target=answer)
        thread.start()
        address = Address.parse(f"localhost:0,unix_socket_path={tmp_path / 's'}")
        pool = Pool(RedisEndpoint(address, PATIENCE, PATIENCE))
        assert [ask(pool) for _ in range(3)] == [0, 1, 2]
        pool.retire()
        pool = Pool(RedisEndpoint(address, 0.2, PATIENCE))
        with pytest.raises(StoreTimeoutError):
            ask(pool)
        pool.retire()
        ended.set()
        thread.join()


def test_what_is_no_redis_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        reader = redis_reader(plan_for(f"127.0.0.1:{listener.getsockname()[1]}"), Path(), timeout=2)
        with pytest.raises(StoreUnavailableError, match="Protocol error"):
            reader.read(["1"])
        thread.join()


def test_large_values_arrive_whole(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    blob = bytes(range(256)) * 4096
    with redis.Redis(port=server.port) as client:
        for user in ("big", "bigger"):
            content = blob * (4 if user == "bigger" else 1)
            value = b"\x0a" + varint(len(content)) + content
            client.hset(KEY(user), mapping={field_bytes(2): value, "_ts:v": SEEN})
    reader = make_reader()
    assert reader.read(["big"])[0].values == {"v:blob": blob}
    big, one, bigger, nobody = reader.read(["big", "1", "bigger", "nobody"])
    assert (big.values, bigger.values) == ({"v:blob": blob}, {"v:blob": blob * 4})
    assert is_right("1", one)
    assert not nobody.is_known


def test_a_damaged_value_leaves_no_answer_behind(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    with redis.Redis(port=server.port) as client:
        client.hset(KEY("odd"), mapping={field_bytes(1): b"\xff\xff\xff", "_ts:v": SEEN})
        client.set(KEY("no hash"), "x")
    reader = make_reader()
    for odd in ("odd", "no hash"):
        with pytest.raises(StoreError):
            reader.read(["1", odd, *map(str, range(300))])
        with pytest.raises(StoreError):
            reader.read([odd])
        assert is_right("7", reader.read(["7"])[0])


def test_a_wide_question_reads_the_whole_hash_unless_that_holds_much_more(server: Server) -> None:
    features = tuple(PlanFeature(f"f{number}", "Int64", number) for number in range(60))
    plan = ReadPlan("shop", "user", "user_id", 3, plan_for(server.address).connection, (PlanView("v", "v", features),))
    contents = {field_bytes(number): b"\x20" + varint(number) for number in range(0, 60, 2)} | {b"_ts:v": SEEN}
    expected = {f"v:f{number}": number for number in range(0, 60, 2)}
    with redis.Redis(port=server.port) as client:
        client.hset(KEY("wide"), mapping=contents)
        client.hset(KEY("wider"), mapping={f"other {number}": "x" for number in range(200)} | contents)

        def calls(during: Callable[[], object]) -> tuple[str, ...]:
            client.config_resetstat()
            during()
            return tuple(
                sorted(name for name in client.info("commandstats") if name in ("cmdstat_hmget", "cmdstat_hgetall"))
            )

        reader = redis_reader(plan, Path())
        users = ["wide", "nobody", "wide"]
        assert calls(lambda: [reader.read(["wide"] * 3), reader.read(["wide"])]) == ("cmdstat_hgetall",)
        assert [row.values for row in reader.read(users)] == [expected, {}, expected]
        assert [row.values for row in asyncio.run(read_async(plan, users))] == [expected, {}, expected]
        assert calls(lambda: reader.read(["wide"], ["v:f2", "v:f3"])) == ("cmdstat_hmget",)
        assert [row.values for row in reader.read(["wide", "wider"])] == [expected, expected]
        assert calls(lambda: reader.read(users)) == ("cmdstat_hmget",)
        assert [row.values for row in reader.read(["wider", *users])] == [expected, expected, {}, expected]
        client.set(KEY("odd"), "x")
        with pytest.raises(StoreError, match="another type"):
            redis_reader(plan, Path()).read(["odd"])
        reader.close()


# --- many at once ----------------------------------------------------------------------------------------------------


def test_threads_share_connections_and_wait_for_one(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    reader = make_reader(",max_connections=2")
    wrong: list[object] = []

    def work(offset: int) -> None:
        for number in range(100):
            user = str((number * 7 + offset) % USERS)
            found = reader.read([user])[0]
            if not is_right(user, found):
                wrong.append((user, found))

    run_threads(work, 8)
    assert wrong == []
    assert 1 <= server.connections() <= 2


def test_when_all_connections_stay_busy_the_request_says_so(
    server: Server, make_reader: Callable[..., RedisReader]
) -> None:
    reader = make_reader(",max_connections=1", timeout=0.5)
    reader.read(["1"])
    server.pause()
    errors: list[StoreError] = []

    def work(_: int) -> None:
        try:
            reader.read(["1"])
        except StoreError as error:
            errors.append(error)

    began = time.monotonic()
    run_threads(work, 40)
    assert time.monotonic() - began < 10, "one waited after the other, 20 seconds together"
    assert [type(error) for error in errors] == [StoreTimeoutError] * 40
    server.go_on()
    assert is_right("3", reader.read(["3"])[0])
    assert server.connections() == 1


def run_threads(work: Callable[[int], None], number: int) -> None:
    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def judged(reader: RedisReader, users: Sequence[str]) -> list[EntityFeatures]:
    """What ``lookup_many`` does: decoded while the store works on the next ones."""
    layout = reader._layouts.of(None)
    return reader.answers(layout, users, layout.decode)


def test_a_connection_that_breaks_between_answers_is_replaced_for_the_rest(
    server: Server, make_reader: Callable[..., RedisReader]
) -> None:
    reader = make_reader()
    layout = reader._layouts.of(None)
    users = [str(number % USERS) for number in range(2_000)]
    calls = 0

    def judge(user: str, row: Row) -> EntityFeatures:
        nonlocal calls
        calls += 1
        if calls == 150:
            with redis.Redis(port=server.port) as client:
                client.client_kill_filter(_type="normal", skipme=True)
        return layout.decode(user, row)

    found = reader.answers(layout, users, judge)
    assert [one.entity for one in found] == users
    assert all(map(is_right, users, found))
    assert calls == len(users)


@pytest.mark.parametrize("ask", [RedisReader.read, judged])
def test_killed_and_restarted_under_load_every_request_is_right_or_an_error_in_time(
    server: Server, make_reader: Callable[..., RedisReader], ask: Callable[..., list[EntityFeatures]]
) -> None:
    reader = make_reader(timeout=PATIENCE / 2)
    end = threading.Event()
    wrong: list[object] = []
    answers, failures = [0] * 6, [0] * 6

    def work(offset: int) -> None:
        number = offset
        while not end.is_set():
            number += 1
            users = [str((number + step) % USERS) for step in range(1 if offset % 2 else 40)]
            began = time.monotonic()
            try:
                found = ask(reader, users)
            except StoreError:
                failures[offset] += 1
                time.sleep(0.005)
            else:
                answers[offset] += 1
                # Just after a restart the server is empty, which is an error: nobody is absent, and nobody another.
                wrong.extend((u, f) for u, f in zip(users, found, strict=True) if not is_right(u, f))
            if time.monotonic() - began > PATIENCE:
                wrong.append(f"took {time.monotonic() - began}")

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            wait_for_more(answers)
            server.kill()
            wait_for_more(failures)
            server.start()
        wait_for_more(answers)
        before = sum(failures)
        wait_for_more(answers)
        assert sum(failures) == before, "it did not recover by itself"
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert server.connections() <= 6


def wait_for_more(counts: Sequence[int], more: int = 5) -> None:
    """Wait until each of these counts has grown by so many."""
    wanted = [count + more for count in counts]
    deadline = time.monotonic() + 6 * PATIENCE
    while any(count < least for count, least in zip(counts, wanted, strict=True)):
        assert time.monotonic() < deadline, f"{counts} of {wanted}"
        time.sleep(0.005)


def test_a_closed_reader_lets_go_of_its_connections(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    reader = make_reader()
    reader.read(["1"])
    assert server.connections() == 1
    reader.close()
    deadline = time.monotonic() + PATIENCE
    while server.connections() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.connections() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_connections_of_its_own(server: Server, make_reader: Callable[..., RedisReader]) -> None:
    reader = make_reader()
    reader.read(["1"])
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        right = all(is_right(str(n % USERS), reader.read([str(n % USERS)])[0]) for n in range(300))
        os.write(start, b"%d" % right)
        os._exit(0)
    right = all(is_right(str(n % USERS), reader.read([str(n % USERS)])[0]) for n in range(300, 900))
    os.waitpid(child, 0)
    assert os.read(end, 1) == b"1"
    assert right
    assert is_right("9", reader.read(["9"])[0])
    os.close(end)
    os.close(start)


def test_a_reader_that_nobody_closed_makes_no_noise(server: Server) -> None:
    reader = redis_reader(plan_for(server.address), Path())
    reader.read(["1"])
    del reader
    gc.collect()


# --- encryption ------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, and its key beside it."""
    path = tmp_path / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{path}.key", "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl makes the certificate of this test")
    return path


def forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        end.close()


@pytest.fixture
def encrypted(server: Server, certificate: Path) -> Iterator[int]:
    """A port on which the server is reached through TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, f"{certificate}.key")
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                outside, _ = listener.accept()
                outer = context.wrap_socket(outside, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            inner = socket.create_connection(("127.0.0.1", server.port))
            ends.extend((outer, inner))
            for pair in ((outer, inner), (inner, outer)):
                threading.Thread(target=forward, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()
    for end in ends:
        end.close()


def test_encrypted_connections(encrypted: int, certificate: Path, server: Server) -> None:
    trusting = f"localhost:{encrypted},ssl=true,ssl_ca_certs={certificate}"
    reader = redis_reader(plan_for(trusting), Path(), timeout=1.0)
    assert isinstance(reader.transport, SocketTransport)
    users = [str(number) for number in range(USERS)]
    assert is_right("1", reader.read(["1"])[0])
    assert all(map(is_right, users, reader.read(users)))
    assert is_right("1", asyncio.run(read_async(plan_for(trusting), ["1"]))[0])
    server.pause()
    with pytest.raises(StoreTimeoutError):
        reader.read(["1"])
    server.go_on()
    assert is_right("2", reader.read(["2"])[0])
    reader.close()
    unchecked = f"127.0.0.1:{encrypted},ssl=true,ssl_cert_reqs=none"
    assert is_right("1", redis_reader(plan_for(unchecked), Path()).read(["1"])[0])
    for distrusting in (
        f"localhost:{encrypted},ssl=true",
        f"127.0.0.1:{encrypted},ssl=true,ssl_ca_certs={certificate}",
    ):
        with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
            redis_reader(plan_for(distrusting), Path()).read(["1"])
    with pytest.raises(ProjectError, match="cannot be set up"):
        redis_reader(plan_for(f"localhost:{encrypted},ssl=true,ssl_ca_certs=/nowhere"), Path()).read(["1"])


# --- asyncio ---------------------------------------------------------------------------------------------------------


async def read_async(plan: ReadPlan, users: list[str]) -> list[EntityFeatures]:
    reader = await open_async_reader(plan, Path())
    found = await reader.read(users)
    await reader.close()
    return found


async def all_right(reader: AsyncOnlineReader, users: list[str]) -> bool:
    one_by_one = await asyncio.gather(*(reader.read([user]) for user in users))
    together = await reader.read(users)
    return all(map(is_right, users, together)) and all(
        is_right(u, f[0]) for u, f in zip(users, one_by_one, strict=True)
    )


def test_asyncio_many_requests_share_few_connections(server: Server) -> None:
    async def main() -> None:
        reader = await open_async_reader(plan_for(server.address), Path())
        users = [str(number) for number in range(USERS)]
        assert await all_right(reader, users)
        assert await all_right(reader, users)
        assert 1 <= server.connections() <= 4
        await reader.close()

    asyncio.run(main())


def test_asyncio_a_cancelled_request_disturbs_no_other(server: Server) -> None:
    async def main() -> None:
        reader = await open_async_reader(plan_for(server.address), Path(), timeout=2)
        first = asyncio.create_task(reader.read(["1"]))  # it opens the connection that the others wait for too
        others = [asyncio.create_task(reader.read([str(number)])) for number in range(2, 40)]
        await asyncio.sleep(0)
        first.cancel()
        for number, other in enumerate(others, 2):
            assert is_right(str(number), (await other)[0])
        for round_ in range(50):
            tasks = [asyncio.create_task(reader.read([str(n), str(n + 1)])) for n in range(20)]
            for _ in range(round_ % 4):
                await asyncio.sleep(0)
            for task in tasks[round_ % 3 :: 3]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for number, found in enumerate(results):
                if not isinstance(found, asyncio.CancelledError):
                    assert not isinstance(found, BaseException)
                    assert is_right(str(number), found[0])
                    assert is_right(str(number + 1), found[1])
        await reader.close()

    asyncio.run(main())


def test_asyncio_a_server_that_hangs_is_a_timeout_and_leaves_no_answer_behind(server: Server) -> None:
    async def main() -> None:
        reader = await open_async_reader(plan_for(server.address), Path(), timeout=0.3)
        await reader.read(["1"])
        server.pause()
        began = time.monotonic()
        results = await asyncio.gather(*(reader.read([str(n)]) for n in range(20)), return_exceptions=True)
        assert {type(result) for result in results} == {StoreTimeoutError}
        assert time.monotonic() - began < PATIENCE
        server.go_on()
        assert await all_right(reader, [str(number) for number in range(100)])
        await reader.close()

    asyncio.run(main())


def test_asyncio_killed_and_restarted_under_load(server: Server) -> None:
    async def main() -> None:
        reader = await open_async_reader(plan_for(server.address), Path(), timeout=PATIENCE / 2)
        wrong: list[object] = []
        answers, failures = [0] * 10, [0] * 10
        end = False

        async def work(offset: int) -> None:
            number = offset * 50
            while not end:
                number += 1
                user = str(number % USERS)
                began = time.monotonic()
                try:
                    found = (await reader.read([user]))[0]
                except StoreError:
                    failures[offset] += 1
                    await asyncio.sleep(0.01)
                else:
                    answers[offset] += 1
                    if found.entity != user or (found.values and not is_right(user, found)):
                        wrong.append(found)
                if time.monotonic() - began > PATIENCE:
                    wrong.append(f"took {time.monotonic() - began}")

        tasks = [asyncio.create_task(work(offset)) for offset in range(10)]
        for _ in range(3):
            await asyncio.to_thread(wait_for_more, answers)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(wait_for_more, failures)
            await asyncio.to_thread(server.start)
        await asyncio.to_thread(wait_for_more, answers)
        before = sum(failures)
        await asyncio.to_thread(wait_for_more, answers)
        assert sum(failures) == before, "it did not recover by itself"
        end = True
        await asyncio.gather(*tasks)
        assert wrong == []
        await reader.close()

    asyncio.run(main())


def test_asyncio_a_store_that_is_down_and_a_wrong_password(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="refuses the user or password"):
        asyncio.run(read_async(plan_for(f"{server.address},password=wrong"), ["1"]))
    server.kill()
    with pytest.raises(StoreUnavailableError, match="cannot reach"):
        asyncio.run(read_async(plan_for(server.address), ["1"]))


def test_asyncio_a_damaged_value_leaves_no_answer_behind(server: Server) -> None:
    with redis.Redis(port=server.port) as client:
        client.hset(KEY("odd"), mapping={field_bytes(1): b"\xff\xff\xff", "_ts:v": SEEN})

    async def main() -> None:
        reader = await open_async_reader(plan_for(server.address), Path())
        for users in (["odd"], ["1", "odd", "2"]):
            with pytest.raises(StoreError):
                await reader.read(users)
            assert is_right("7", (await reader.read(["7"]))[0])
        assert server.connections() == 1
        await reader.close()

    asyncio.run(main())


def test_asyncio_each_event_loop_has_connections_of_its_own(server: Server) -> None:
    reader = asyncio.run(open_async_reader(plan_for(server.address), Path()))
    for number in range(3):
        assert is_right(str(number), asyncio.run(reader.read([str(number)]))[0])
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # each loop ended with an open connection
        del reader
        gc.collect()


# --- clusters --------------------------------------------------------------------------------------------------------


def test_a_cluster_of_three_masters(tmp_path: Path) -> None:
    servers = []
    try:
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            servers.append(ClusterNode(tmp_path / str(number)))
        form_cluster(servers)
        users = [str(number) for number in range(1000)]
        fill_cluster(servers[0].port, users)
        plan = plan_for(servers[0].address)
        clustered = Connection("redis", servers[0].address, redis_type="redis_cluster")
        plan = ReadPlan(plan.project, plan.entity, plan.join_key, 3, clustered, plan.views)
        reader = redis_reader(plan, Path())
        assert isinstance(reader.transport, ClientTransport)
        assert all(map(is_right, users, reader.read(users)))
        assert is_right("1", reader.read(["1"])[0])
        assert not reader.read(["nobody"])[0].is_known
        reader.close()
        assert all(map(is_right, users, asyncio.run(read_async(plan, users))))
        # Each of the three has a part of the users, and a client that takes it for a single server is told so.
        single = plan_for(servers[0].address)
        with pytest.raises(StoreUnavailableError, match="MOVED") as caught:
            redis_reader(single, Path()).read(users)
        assert "redis_cluster" in str(caught.value.hint)
    finally:
        for server in servers:
            server.kill()


class ClusterNode(Server):
    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            bus = probe.getsockname()[1]
        super().__init__(
            folder, "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"
        )
        self.bus = bus

    def fill(self) -> None:
        with redis.Redis(port=self.port) as client:
            client.ping()


def form_cluster(servers: list[ClusterNode]) -> None:
    for server, (low, high) in zip(servers, ((0, 5460), (5461, 10922), (10923, 16383)), strict=True):
        with redis.Redis(port=server.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus)
    deadline = time.monotonic() + 20
    for server in servers:
        with redis.Redis(port=server.port) as client:
            while b"cluster_known_nodes:3" not in (found := client.execute_command("CLUSTER", "INFO")) or (
                b"cluster_state:ok" not in found
            ):
                assert time.monotonic() < deadline, found
                time.sleep(0.05)


def fill_cluster(port: int, users: list[str]) -> None:
    client = redis.RedisCluster(host="127.0.0.1", port=port)
    for user in users:
        name = f"user {user}".encode()
        client.hset(KEY(user), mapping={field_bytes(1): b"\x12" + varint(len(name)) + name, b"_ts:v": SEEN})
    StoreMark(client, "shop").declare(["v"])
    client.close()
