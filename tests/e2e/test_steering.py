"""Steering in the kernel and the bank of listening sockets, with real sockets on loopback."""

import contextlib
import os
import random
import select
import socket
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from everup.adapters import steering
from everup.adapters.sockets import SocketBank, socket_name
from everup.adapters.targets import target
from everup.model.instance import Slot
from everup.model.signal import ProbeKind
from everup.model.spec import Listener, Probe, Service

PATIENCE_S = 10.0
HOSTS = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"]


class Bank(SocketBank):
    """A bank that keeps what it told the keeper, and what it says."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.said: list[str] = []
        super().__init__(self._took, self._gave, lambda name, text: self.said.append(text))

    def _took(self, names: Sequence[str], fds: Sequence[int]) -> None:
        assert len(names) == len(fds)
        self.held += names

    def _gave(self, names: Sequence[str]) -> None:
        for name in names:
            self.held.remove(name)

    def group(self, service: Service, listener: str = "main") -> list[socket.socket]:
        prefix = f"sock:{service.name}:{listener}:"
        return [s for name, s in sorted(self._sockets.items()) if name.startswith(prefix)]


@pytest.fixture
def bank() -> Iterator[Bank]:
    bank = Bank()
    yield bank
    for sock in bank._sockets.values():
        sock.close()


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def web(host: str, replicas: int, port: int = 0, name: str = "web") -> Service:
    address = f"{host}:{port or free_port()}"
    return Service(name, ("x",), listen=(Listener("main", address),), replicas=replicas)


def port_of(service: Service, index: int = 0) -> int:
    return int(service.listen[index].address.rpartition(":")[2])


def who_got_it(group: list[socket.socket]) -> int:
    """The index of the socket on whose queue a connection waits; takes it."""
    ready, _, _ = select.select(group, [], [], PATIENCE_S)
    assert len(ready) == 1
    ready[0].accept()[0].close()
    return group.index(ready[0])


def connect(host: str, port: int, *, source: str = "", traffic_class: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(PATIENCE_S)
    if traffic_class and sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
    elif traffic_class:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
    if source:
        sock.bind((source, 0))
    sock.connect((host, port))
    return sock


def spread(
    service: Service, bank: Bank, host: str, count: int = 120, **how: object
) -> Counter[int]:
    """Which replicas (from 1) get so many connections."""
    got: Counter[int] = Counter()
    for _ in range(count):
        with connect(host, port_of(service), **how):  # type: ignore[arg-type]
            got[who_got_it(bank.group(service)) + 1] += 1
    return got


@pytest.mark.parametrize("active", [(1,), (2, 3), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("host", HOSTS)
def test_a_probe_reaches_exactly_the_replica_it_means(
    bank: Bank, host: str, active: tuple[int, ...]
) -> None:
    service = web(host, 5)
    bank.open(service, 5)
    bank.steer(service, active)
    assert bank.steers
    for replica in (1, 2, 3, 4, 5) * 2:  # whether it is in the balance or not
        slot = Slot("web", replica)
        where = target(service, slot, ProbeKind.READINESS, 1, Probe(tcp="listen"), replica)
        with connect(
            where.host, where.port, source=where.source, traffic_class=where.traffic_class
        ):
            assert who_got_it(bank.group(service)) + 1 == replica


def test_a_dual_stack_listener_steers_probes_over_ipv4_too(bank: Bank) -> None:
    service = web("[::]", 3)
    bank.open(service, 3)
    bank.steer(service, (1,))
    for replica in (1, 2, 3):
        with connect("127.0.0.1", port_of(service), source=steering.probe_source(replica)):
            assert who_got_it(bank.group(service)) + 1 == replica


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("[::]", "::1"), ("[::]", "127.0.0.1"),
    ],
)  # fmt: skip
def test_others_go_evenly_to_the_active_ones_only(bank: Bank, listen: str, host: str) -> None:
    service = web(listen, 4)
    bank.open(service, 4)
    for active in ((2, 4), (1,), (1, 2, 3), (3,)):
        bank.steer(service, active)
        got = spread(service, bank, host)
        assert set(got) == set(active)
        # 120 fair throws among at most 3: fewer than 15 for one comes once in 10**6.
        assert min(got.values()) >= 15


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_large_group(bank: Bank, host: str) -> None:
    service = web(host, 100)
    bank.open(service, 100)
    bank.steer(service, range(1, 101))
    names = [socket_name("web", "main", n) for n in range(100)]
    group = [bank._sockets[name] for name in names]
    for replica in (1, 62, 63, 100):
        slot = Slot("web", replica)
        where = target(service, slot, ProbeKind.LIVENESS, 1, Probe(tcp="listen"), replica)
        with connect(
            where.host, where.port, source=where.source, traffic_class=where.traffic_class
        ):
            got = who_got_it(group) + 1
        if host == "127.0.0.1" or replica <= steering.MAX_TRAFFIC_CLASS_REPLICA:
            assert got == replica


def test_over_ipv4_a_traffic_class_means_nothing(bank: Bank) -> None:
    for listen in ("127.0.0.1", "[::]"):
        service = web(listen, 3, name=f"s{len(bank.held)}")
        bank.open(service, 3)
        bank.steer(service, (1,))
        mark = steering.probe_traffic_class(2)
        assert set(spread(service, bank, "127.0.0.1", 20, traffic_class=mark)) == {1}


def test_another_loopback_source_means_nothing(bank: Bank) -> None:
    service = web("127.0.0.1", 3)
    bank.open(service, 3)
    bank.steer(service, (1,))
    for source in ("127.0.0.2", "127.76.0.2", "127.78.0.2"):
        assert set(spread(service, bank, "127.0.0.1", 10, source=source)) == {1}


def other_ipv6() -> str:
    """An IPv6 address of this machine that is not loopback; "" without."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            packed, _, _, scope, _, _ = line.split()
            if scope == "00":
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))
    return ""


@pytest.mark.skipif(not other_ipv6(), reason="no global IPv6 address here")
def test_from_another_source_a_traffic_class_means_nothing(bank: Bank) -> None:
    service = web("[::]", 3)
    bank.open(service, 3)
    bank.steer(service, (1,))
    mark = steering.probe_traffic_class(2)
    assert set(spread(service, bank, other_ipv6(), 10, traffic_class=mark)) == {1}


def test_the_ipv6_program_asks_for_the_loopback_source() -> None:
    """The same read off the program, for machines without such an address."""
    assert (
        run(steering.program([0]), source="::1", traffic_class=steering.probe_traffic_class(3)) == 2
    )
    for source in ("::2", "fe80::1", "2001:db8::1", "1::1", "::ffff:127.0.0.1", "::"):
        for mark in range(0, 256, 4):
            assert run(steering.program([7]), source=source, traffic_class=mark) == 7


def test_low_bits_of_the_traffic_class_are_the_networks() -> None:
    """The two lowest (ECN) may be changed under way, and say nothing."""
    for ecn in range(4):
        mark = steering.probe_traffic_class(5) | ecn
        assert run(steering.program([0]), source="::1", traffic_class=mark) == 4
    assert run(steering.program([0]), source="::1", traffic_class=3) == 0


def run(code: list[steering.Instruction], *, source: str, traffic_class: int) -> int:
    """The program over an IPv6 header, with 0 for random."""
    first = (6 << 28 | traffic_class << 20).to_bytes(4, "big")
    header = first + bytes(4) + socket.inet_pton(socket.AF_INET6, source) + bytes(16)
    accumulator, at = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        match operation:
            case 0x20 | 0x30:
                size, offset = (4 if operation == 0x20 else 1), k - 0xFFF00000
                data = header[offset : offset + size]
                accumulator = 0 if k == 0xFFFFF000 + 56 else int.from_bytes(data, "big")
            case 0x54:
                accumulator &= k
            case 0x74:
                accumulator >>= k
            case 0x14:
                accumulator -= k
            case 0x94:
                accumulator %= k
            case 0x15:
                at += yes if accumulator == k else no
            case 0x05:
                at += k
            case 0x06:
                return k
            case 0x16:
                return accumulator
            case _:
                raise AssertionError(f"unknown instruction {operation:#x}")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_successor_answers_who_waits_on_a_dead_replica(bank: Bank, host: str) -> None:
    service = web(host, 2)
    bank.open(service, 2)
    bank.steer(service, (2,))
    waiting = connect(host.strip("[]"), port_of(service))
    waiting.sendall(b"ping")
    child = os.fork()  # the replica: it has the socket, and dies without a word
    if child == 0:
        os._exit(1)
    os.waitpid(child, 0)
    bank.steer(service, (1,))
    fd = os.dup(bank._sockets[dict(bank.names(service, 2))["main"]].fileno())
    with socket.socket(fileno=fd) as successor, waiting:
        successor.settimeout(PATIENCE_S)
        answer, _ = successor.accept()
        with answer:
            assert answer.recv(4) == b"ping"
            answer.sendall(b"pong")
        assert waiting.recv(4) == b"pong"


def test_who_waits_for_one_that_is_down_for_good_is_sent_away(bank: Bank) -> None:
    service = web("127.0.0.1", 2)
    bank.open(service, 2)
    bank.steer(service, (2,))
    with connect("127.0.0.1", port_of(service)) as waiting:
        bank.empty(service, 2)
        assert waiting.recv(1) == b""
    bank.steer(service, (1,))
    with connect("127.0.0.1", port_of(service)):
        bank.empty(service, 2)  # nobody there: it returns at once
        assert who_got_it(bank.group(service)) == 0


def test_a_predecessors_flags_are_taken_off(bank: Bank) -> None:
    service = web("127.0.0.1", 2)
    bank.open(service, 2)
    bank.group(service)[1].setblocking(False)
    bank.refresh(service, 2)
    assert os.get_blocking(bank.group(service)[1].fileno())


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_port_in_use_is_refused_with_its_holder(bank: Bank, host: str, reuse: bool) -> None:
    """Also when the holder would share it (SO_REUSEPORT): half its clients would go astray."""
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.socket(family) as holder:
        if reuse:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host.strip("[]"), 0))
        holder.listen()
        service = web(host, 2, holder.getsockname()[1])
        with pytest.raises(OSError, match=rf"in use by .* \(pid {os.getpid()}\)"):
            bank.open(service, 2)
    assert bank.held == []
    assert not bank.ready(service)
    bank.open(service, 2)  # free now
    assert bank.ready(service)


def test_an_address_that_is_not_this_machines(bank: Bank) -> None:
    """It may be there later: it is said, once, and works from then on."""
    bank.open(web("192.0.2.1", 2), 2)
    assert len(bank.held) == 2
    assert len(bank.said) == 1
    assert "works from the moment that it is there" in bank.said[0]


def test_two_listeners_are_two_groups(bank: Bank) -> None:
    first, second = free_port(), free_port(socket.AF_INET6)
    service = Service(
        "web", ("x",), replicas=2,
        listen=(Listener("api", f"127.0.0.1:{first}"), Listener("admin", f"[::1]:{second}")),
    )  # fmt: skip
    bank.open(service, 2)
    assert bank.held == [
        "sock:web:api:0", "sock:web:api:1", "sock:web:admin:0", "sock:web:admin:1",
    ]  # fmt: skip
    assert bank.names(service, 2) == [("api", "sock:web:api:1"), ("admin", "sock:web:admin:1")]
    bank.steer(service, (2,))
    for _ in range(5):
        with connect("127.0.0.1", first):
            assert who_got_it(bank.group(service, "api")) == 1
        with connect("::1", second):
            assert who_got_it(bank.group(service, "admin")) == 1
    bank.close(service.name, service.listen)
    assert bank.held == []
    with pytest.raises(ConnectionRefusedError):
        connect("127.0.0.1", first)


def test_more_slots_join_the_group_and_are_steered(bank: Bank) -> None:
    service = web("127.0.0.1", 1)
    bank.open(service, 1)
    bank.steer(service, (1,))
    bank.open(service, 3)
    bank.open(service, 3)  # nothing to do
    assert len(bank.held) == 3
    bank.steer(service, (2, 3))
    assert set(spread(service, bank, "127.0.0.1", 40)) == {2, 3}
    bank.steer(service, (1,))  # scaled back: their sockets stay, and get nothing
    assert set(spread(service, bank, "127.0.0.1", 40)) == {1}


# -- lanes, and their order in the kernel


def plain(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
    sock.bind((host, port))
    sock.listen()
    return sock


def a_group(host: str, count: int) -> list[socket.socket]:
    first = plain(host, 0)
    steering.attach(first, [0])
    return [first, *(plain(host, first.getsockname()[1]) for _ in range(count - 1))]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_the_kernel_puts_the_last_one_into_the_place_of_one_that_is_closed(host: str) -> None:
    rng = random.Random(7)
    for _ in range(12):
        group = a_group(host, rng.randint(1, 7))
        model = list(range(len(group)))
        for number in rng.sample(model, rng.randint(0, len(group) - 1)):
            group[number].close()
            place = model.index(number)
            model[place] = model[-1]
            model.pop()
        rng.shuffle(order := list(model))
        found = steering.positions([group[number] for number in order])
        assert found == [model.index(number) for number in order]
        # And so it is who gets what.
        steering.attach(group[model[0]], range(len(model)))
        for place, number in enumerate(model):
            loopback = "::1" if ":" in host else "127.0.0.1"
            how = (
                {"traffic_class": steering.probe_traffic_class(place + 1)}
                if ":" in host else {"source": steering.probe_source(place + 1)}
            )  # fmt: skip
            port = group[number].getsockname()[1]
            with connect(loopback, port, **how):  # type: ignore[arg-type]
                assert who_got_it([group[n] for n in model]) == place
        for number in model:
            group[number].close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nobody_notices_that_the_order_is_asked_for(host: str) -> None:
    group = a_group(host, 3)
    port = group[0].getsockname()[1]
    steering.attach(group[0], [1])
    with connect(host, port):
        assert steering.positions(group) == [0, 1, 2]
        assert who_got_it(group) == 1  # that one, which waited
        assert select.select(group, [], [], 0)[0] == []  # and nobody else
    with connect(host, port):
        assert who_got_it(group) == 1
    with connect(host, port, source="" if ":" in host else "127.77.0.3",
                 traffic_class=3 << 2 if ":" in host else 0):  # fmt: skip
        assert who_got_it(group) == 2  # no filter is left behind
    for sock in group:
        sock.close()


def test_the_order_is_found_while_clients_come() -> None:
    group = a_group("127.0.0.1", 4)
    port = group[0].getsockname()[1]
    done, closed = threading.Event(), threading.Event()
    answered = []

    def serve() -> None:
        while not closed.is_set():
            for sock in select.select(group, [], [], 0.01)[0]:
                sock.accept()[0].close()

    def come() -> None:
        while not done.is_set():
            with connect("127.0.0.1", port) as client:
                answered.append(client.recv(1))

    server, *clients = (threading.Thread(target=work) for work in (serve, come, come))
    for thread in (server, *clients):
        thread.start()
    try:
        for _ in range(20):
            assert steering.positions(group) == [0, 1, 2, 3]
    finally:
        done.set()
        for thread in clients:
            thread.join()
        closed.set()  # only now: whoever came is answered
        server.join()
        for sock in group:
            sock.close()
    assert set(answered) == {b""}


def test_an_order_that_cannot_be_told() -> None:
    group = a_group("127.0.0.1", 4)
    assert steering.positions(group[1:]) is None  # the first is somebody else's
    steering.attach(group[0], [0])
    group[0].close()
    assert steering.positions(group[1:]) == [1, 2, 0]
    for sock in group[1:]:
        sock.close()
    with plain("127.0.0.1", 0) as closed:
        pass
    assert steering.positions([closed]) is None


def test_a_spare_lane_gets_nothing_before_its_time(bank: Bank) -> None:
    service = web("127.0.0.1", 1)
    bank.open(service, 1)
    assert bank.lanes(service) == 1
    bank.open(service, 2)  # nobody has steered yet
    assert bank.lanes(service) == 2
    assert bank.can_steer
    assert bank.steerable(service)
    assert set(spread(service, bank, "127.0.0.1", 30)) == {1}
    bank.steer(service, (2, 9))  # a lane that is not open is left out
    assert set(spread(service, bank, "127.0.0.1", 30)) == {2}
    bank.open(service, 3)
    assert set(spread(service, bank, "127.0.0.1", 30)) == {2}


def test_lanes_are_of_all_listeners(bank: Bank, tmp_path: Path) -> None:
    listeners = (
        Listener("api", f"127.0.0.1:{free_port()}"), Listener("local", f"unix:{tmp_path}/s"),
    )  # fmt: skip
    service = Service("web", ("x",), listen=listeners, replicas=2)
    assert bank.lanes(service) == 0
    bank.open(service, 2)
    assert bank.lanes(service) == 2
    assert bank.ready(service, 2)
    assert not bank.ready(service, 3)
    assert bank.lanes(unix(tmp_path / "none")) == 0


def test_in_unknown_order_the_kernel_spreads_and_new_engines_know(bank: Bank) -> None:
    """A gap in the lanes: what is opened now is at the end, not in the gap."""
    service = web("127.0.0.1", 3)
    bank.open(service, 3)
    bank.steer(service, (1,))
    after = Bank()
    for index in (0, 2):
        name = socket_name("web", "main", index)
        after.adopt(name, os.dup(bank._sockets[name].fileno()))
        after.held.append(name)
    for sock in bank._sockets.values():
        sock.close()
    bank._sockets.clear()
    after.open(service, 3)
    assert not after.can_steer
    assert not after.steerable(service)
    assert len(after.said) == 1
    assert sorted(after.held) == [f"sock:web:main:x{n}" for n in range(3)]
    assert [name for _, name in after.names(service, 2)] == ["sock:web:main:x1"]
    after.steer(service, (1,))  # as good as it gets: all of them
    assert set(spread(service, after, "127.0.0.1", 90)) == {1, 2, 3}
    third = Bank()
    for name, sock in after._sockets.items():
        third.adopt(name, os.dup(sock.fileno()))
        third.held.append(name)
    assert not third.can_steer
    assert third.ready(service, 3)
    for sock in after._sockets.values():
        sock.close()
    third.close(service.name, service.listen)
    assert third.can_steer
    third.open(service, 2)  # anew, and in order
    third.steer(service, (2,))
    assert set(spread(service, third, "127.0.0.1", 20)) == {2}
    third.close(service.name, service.listen)
    assert third.held == []


def unix(path: Path) -> Service:
    return Service("web", ("x",), replicas=3, listen=(Listener("main", f"unix:{path}"),))


def test_unix_socket_is_one_for_all_with_its_mode(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    service = unix(path)
    bank.open(service, 3)
    bank.steer(service, (2,))
    assert bank.held == ["sock:web:main:0"]
    assert bank.names(service, 3) == [("main", "sock:web:main:0")]
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    bank.close(service.name, service.listen)
    assert not path.exists()


def test_unix_socket_of_the_dead_is_replaced(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    bank.open(unix(path), 3)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_unix_socket_of_the_living_and_other_files_are_left_alone(
    bank: Bank, tmp_path: Path
) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        with pytest.raises(OSError, match=r"cannot listen on unix:.*in use"):
            bank.open(unix(path), 3)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    path.unlink()
    path.write_text("precious")
    with pytest.raises(OSError, match="cannot listen on unix:"):
        bank.open(unix(path), 3)
    assert path.read_text() == "precious"
    assert bank.held == []


def test_a_new_engine_takes_sockets_back_and_forgets_who_is_gone(bank: Bank) -> None:
    service, gone = web("127.0.0.1", 2), web("127.0.0.1", 1, name="gone")
    bank.open(service, 2)
    bank.open(gone, 1)
    after = Bank()
    for name, sock in bank._sockets.items():
        after.adopt(name, os.dup(sock.fileno()))
        after.held.append(name)
    after.forget_unused(["web"])
    assert sorted(after.held) == ["sock:web:main:0", "sock:web:main:1"]
    after.open(service, 2)
    after.steer(service, (2,))
    with connect("127.0.0.1", port_of(service)):
        assert who_got_it(after.group(service)) == 1
    for sock in after._sockets.values():
        sock.close()
