"""Open connections, as the kernel tells them."""

import os
import socket

import pytest

from everup.adapters import connections, sock_diag


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connections_to_a_port_on_which_we_listen_are_counted(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        before = connections.open_connections([os.getpid()])
        client = socket.create_connection(server.getsockname()[:2])
        assert connections.open_connections([os.getpid()]) == before  # it waits in the queue
        ours = server.accept()[0]
        assert connections.open_connections([os.getpid()]) == before + 1  # the client's end is none
        port = server.getsockname()[1]
        assert port in {found.port for found in sock_diag.tcp(sock_diag.LISTEN)}
        ours.close()
        client.close()
        assert connections.open_connections([os.getpid()]) == before


def test_what_is_in_time_wait_is_neither_counted_nor_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(300):
            client = socket.create_connection(("127.0.0.1", port))
            server.accept()[0].close()
            client.recv(1)
            client.close()
        assert not list(sock_diag.tcp(sock_diag.ESTABLISHED, port))
        assert connections.open_connections([os.getpid()]) == 0


def test_a_process_that_is_gone_has_none() -> None:
    assert connections.open_connections([2**22 + 1]) == 0
