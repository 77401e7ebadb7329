"""Start a program with listening sockets, the way everup does: to try out socket activation.

    python activate.py --listen 127.0.0.1:8080 -- uvicorn app:app --fd 3

The sockets get descriptors 3, 4, ...; LISTEN_FDS says how many, LISTEN_FDNAMES their names, and
LISTEN_PID whom they are meant for. The program takes this process over, so its pid stays.
"""

import argparse
import os
import socket
import sys

FIRST_FD = 3


def pass_on(sockets: list[socket.socket], names: list[str], argv: list[str]) -> None:
    """Become ``argv`` with ``sockets`` as descriptors 3 and up; returns only by an exception."""
    # Out of the way first: a socket may sit on the descriptor that another one is to get.
    floor = FIRST_FD + len(sockets)
    spare = [os.dup(sock.fileno()) for sock in sockets]
    while any(fd < floor for fd in spare):
        spare = [fd if fd >= floor else os.dup(fd) for fd in spare]
    for sock in sockets:
        sock.set_inheritable(False)
    for offset, fd in enumerate(spare):
        os.dup2(fd, FIRST_FD + offset, inheritable=True)
    environment = os.environ | {
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": ":".join(names),
        "LISTEN_PID": str(os.getpid()),  # exec keeps the pid
    }
    os.execvpe(argv[0], argv, environment)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.create_server((host.strip("[]"), int(port)), backlog=4096)
    # Connections inherit this. uvicorn takes a passed socket for a Unix one and does not set it
    # itself: every answer on a kept-alive connection would then wait 40 ms for the client's ACK.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="start a program with listening sockets")
    parser.add_argument("--listen", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--fd", action="append", default=[], type=int, help="an inherited socket")
    parser.add_argument("argv", nargs="+", metavar="COMMAND")
    options = parser.parse_args()
    sockets = [socket.socket(fileno=fd) for fd in options.fd]
    sockets += [_listen(address) for address in options.listen]
    if not sockets:
        parser.error("--listen or --fd is needed")
    try:
        pass_on(sockets, [f"listen{i}" for i in range(len(sockets))], options.argv)
    except OSError as error:
        sys.exit(f"{options.argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
