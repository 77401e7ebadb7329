"""``everup-nagios-handler``: an event handler of Nagios that tells everup what fails.

Standard library alone. It runs as Nagios' user, and can do nothing but this.
"""

import argparse
import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence

from everup.integrations.nagios.handled import MOST_LINE_BYTES, Event, line

_AGAIN_S = 0.3
_TO = "127.0.0.1:5668"


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell everup. Gives 0 where it was taken or there was nothing to do, 1 where it was not."""
    asked = _parser().parse_args(arguments)
    # Nagios leaves a macro that has no value as it is.
    about = "" if asked.about.startswith("$") else asked.about
    event = Event(
        asked.host, asked.service, asked.state, asked.type, asked.attempt, asked.text, about
    )
    if event.failing is None:
        print("ignored: soft, or not known")
        return 0
    try:
        with open(asked.secret, encoding="utf-8") as file:
            secret = file.readline().strip("\r\n")
        if not secret:
            raise ValueError(f"{asked.secret}: its first line is empty")
        answer = _tell(asked.to, event, secret, time.monotonic() + asked.timeout)
    except (OSError, ValueError) as error:
        print(f"everup-nagios-handler: {error}", file=sys.stderr)
        return 1
    print(answer)
    return 0 if answer.startswith(("taken", "ignored")) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="everup-nagios-handler",
        description="Tell everup what Nagios finds failing. Write each option as --option=VALUE.",
        allow_abbrev=False,
    )
    parser.add_argument("--secret", required=True, metavar="FILE", help="as secret_file of everup")
    parser.add_argument("--to", default=_TO, help="where everup listens (default: %(default)s)")
    parser.add_argument("--host", required=True, help="$HOSTNAME$")
    parser.add_argument("--service", default="", help="$SERVICEDESC$; without it: the host itself")
    parser.add_argument("--state", required=True, help="$SERVICESTATE$ or $HOSTSTATE$")
    parser.add_argument("--type", default="HARD", help="$SERVICESTATETYPE$ or $HOSTSTATETYPE$")
    parser.add_argument("--attempt", type=int, default=1, help="$SERVICEATTEMPT$, $HOSTATTEMPT$")
    parser.add_argument("--text", default="", help="$SERVICEOUTPUT$ or $HOSTOUTPUT$")
    parser.add_argument(
        "--about", default="", metavar="SERVICE", help="the service of everup that it is about"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds (default: 10)")
    return parser


def _tell(to: str, event: Event, secret: str, until: float) -> str:
    """The answer. Tries again while nobody is there: everup's observer may be starting."""
    host, _, port = to.rpartition(":")
    while True:
        left = until - time.monotonic()
        try:
            with socket.create_connection((host.strip("[]"), int(port)), max(0.1, left)) as peer:
                data = line(event, secret, time.time(), secrets.token_hex(16))
                if len(data) > MOST_LINE_BYTES:
                    raise ValueError("names and text are too long")
                peer.sendall(data)
                answer = _line_of(peer, until)
                if answer:
                    return answer
        except (ConnectionError, TimeoutError):
            pass
        if time.monotonic() + _AGAIN_S >= until:
            raise TimeoutError(f"everup does not answer on {to}")
        time.sleep(_AGAIN_S)


def _line_of(peer: socket.socket, until: float) -> str:
    data = b""
    while b"\n" not in data and len(data) < MOST_LINE_BYTES:
        peer.settimeout(max(0.1, until - time.monotonic()))
        part = peer.recv(1024)
        if not part:
            break
        data += part
    return data.decode("utf-8", "replace").strip()


def run() -> None:
    """End as quickly as it began."""
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
