"""``check_everup``: a Nagios plugin that asks a running everup. Standard library alone: quick."""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from everup.adapters.place import STATE, Place
from everup.integrations.nagios import answers
from everup.integrations.nagios.answers import Answer
from everup.integrations.standing import Level

_MOST_BYTES = 64 << 20
_CONFIG = "/etc/everup/everup.toml"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # argparse ends with 2, and that is CRITICAL
        _end(answers.unknown(f"{message}; see check_everup --help"))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Ask, print one answer, end with its status: 0 to 3, whatever happens."""
    try:
        _end(_answer(arguments))
    except TimeoutError:
        _end(Answer.of(Level.CRITICAL, "everup does not answer in time"))
    except PermissionError as error:
        text = f"this user may not ask ({error.filename or error}): use sudo, or NRPE"
        _end(answers.unknown(text))
    except OSError as error:
        _end(Answer.of(Level.CRITICAL, f"everup does not run, or does not answer: {error}"))
    except Exception as error:
        _end(answers.unknown(f"{type(error).__name__}: {error}"))


def _answer(arguments: Sequence[str] | None) -> Answer:
    parser = _Parser(prog="check_everup", description="Ask everup how its services are.")
    parser.add_argument("service", nargs="?", default="", help="default: all of them")
    parser.add_argument(
        "-c",
        "--config",
        default=os.environ.get("EVERUP_CONFIG") or _CONFIG,
        help="the config file of the everup to ask (default: %(default)s)",
    )
    parser.add_argument("--slo", action="store_true", help="ask for error budgets")
    parser.add_argument(
        "-t", "--timeout", type=float, default=9.0, help="seconds (default: %(default)g)"
    )
    asked = parser.parse_args(arguments)
    until = time.monotonic() + asked.timeout
    path = _socket(asked.config)
    if asked.slo:
        query = "n=5000&follow=0&kind=slo.burning&kind=slo.calm"
        lines = _get(path, f"/v1/events?{query}", until).splitlines()
        return answers.objectives(map(json.loads, lines), asked.service)
    return answers.services(json.loads(_get(path, "/v1/status", until)), asked.service)


def _socket(config: str) -> str:
    """The socket of the everup of a config: that of the first place where there is one."""
    places = [place.api_socket for place in Place.candidates(config, _state_dir(config))]
    return next((path for path in places if os.path.exists(path)), places[0])


def _state_dir(config: str) -> str | None:
    import tomllib

    try:
        with open(config, "rb") as file:
            found: Any = tomllib.load(file).get("everup", {}).get("state_dir", STATE)
    except (tomllib.TOMLDecodeError, AttributeError, UnicodeDecodeError, PermissionError):
        return None
    return found if isinstance(found, str) and found not in ("", STATE) else None


def _get(path: str, target: str, until: float) -> bytes:
    """The body of an answer. Raises ``OSError``."""
    with socket.socket(socket.AF_UNIX) as peer:
        _wait(peer, until)
        try:
            peer.connect(path)
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, path) from None
        peer.sendall(f"GET {target} HTTP/1.0\r\nHost: everup\r\n\r\n".encode())
        parts, size = [], 0
        while True:
            _wait(peer, until)
            part = peer.recv(1 << 16)
            if not part:
                break
            parts.append(part)
            size += len(part)
            if size > _MOST_BYTES:
                raise OSError("the answer is too long")
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise OSError(f"it answers {head[:100]!r}")
    return body


def _wait(peer: socket.socket, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    peer.settimeout(left)


def _end(answer: Answer) -> NoReturn:
    try:
        sys.stdout.write(f"{answer.text}\n")
        sys.stdout.flush()
    finally:
        # Not through the interpreter's end: that takes longer than the question.
        os._exit(int(answer.level))


if __name__ == "__main__":
    main()
