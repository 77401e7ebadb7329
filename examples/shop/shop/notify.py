"""sd_notify: tell the supervisor how the service is."""

import os
import socket


def notify(*lines: str) -> None:
    """Send lines like ``READY=1``; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(name)
        sock.sendall("\n".join(lines).encode())


def watchdog_period_s() -> float | None:
    """How often ``WATCHDOG=1`` is due: half of the time that the supervisor allows."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdigit() and int(usec) > 0 else None
