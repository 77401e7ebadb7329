"""What the machine lacks is told once, and everup goes on without."""

import errno
import socket

import pytest

from everup.adapters import cgroups, steering
from everup.adapters.cgroups import Cgroups
from everup.adapters.sockets import SocketBank
from everup.model.instance import Slot
from everup.model.spec import Limits, Listener, Service


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOPROTOOPT])
def test_a_kernel_without_steering_programs(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_sock: socket.socket, _active: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(steering, "attach", refuse)
    said: list[tuple[str, str]] = []
    bank = SocketBank(lambda *_: None, lambda *_: None, lambda *about: said.append(about))
    port = free_port()
    listener = Listener("main", f"127.0.0.1:{port}")
    service = Service("web", ("serve",), listen=(listener,), replicas=2)
    bank.open(service, 1)
    assert bank.can_steer  # as far as is known
    bank.open(service, 2)
    assert not bank.can_steer  # asked before the second lane was opened, and not only after
    assert not bank.steerable(service)
    try:
        for replicas in ((1, 2), (1,), (2,)):
            bank.steer(service, replicas)
        assert len(said) == 1
        assert said[0][0] == "web"
        assert "refuses a steering program" in said[0][1]
        assert not bank.steers
        with socket.create_connection(("127.0.0.1", port)):  # plain SO_REUSEPORT still listens
            pass
    finally:
        bank.close(service.name, service.listen)


def test_a_machine_without_writable_control_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_v2_home", lambda _name: (None, frozenset()))
    monkeypatch.setattr(cgroups, "_v1_homes", lambda _name: {})
    said: list[tuple[str, str]] = []
    groups = Cgroups("/nowhere", lambda *about: said.append(about))
    slot, limits = Slot("web", 1), Limits(memory=64 << 20, tasks=10)
    for _ in range(3):
        placement = groups.place(slot, limits)
        assert (placement.v2, placement.v1) == (None, [])
    assert [subject for subject, _ in said] == ["web", "web"]  # once for each limit
    assert all("cannot be enforced here" in text for _, text in said)
    assert groups.pids(slot) is None
    assert groups.cpu_s(slot) is None
    assert groups.slot_of(1) is None
    assert groups.owner_group(1) is None
    assert groups.pids(slot, second=True) is None
    assert not groups.oom_killed(slot)
    assert groups.end_leftovers() == {}
    groups.forget(slot)
    groups.close()
