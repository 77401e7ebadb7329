"""Client of the API over its Unix socket."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from everup.adapters.place import Place
from everup.cli.context import NOT_RUNNING, Failure

_RESTART_S = 10.0
"""The API is away this long at most while everup starts or its engine is being replaced, also on
a busy machine; asked for only while somebody holds everup's lock."""
_BUSY = 503

Query = Mapping[str, str | int | Sequence[str]]


class SilentError(Failure):
    """Somebody listens and does not answer: an engine that hangs, or the time between two engines
    on a machine with too much to do. The keeper sees to both; who can wait does."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One running everup. Every method raises ``Failure`` with words for people."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def get(self, path: str, query: Query | None = None, *, timeout_s: float = 10.0) -> Any:
        return json.loads(self._whole("GET", path, query, None, timeout_s))

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0
    ) -> Any:
        return json.loads(self._whole("POST", path, None, body or {}, timeout_s))

    def lines(self, path: str, query: Query) -> Iterator[dict[str, Any]]:
        """Lines of JSON as they come."""
        response = self._ask("GET", path, query, None, None)
        try:
            for line in response:
                yield json.loads(line)
        except (http.client.HTTPException, OSError) as error:
            raise Failure("everup went away", "see: everup status", NOT_RUNNING) from error

    def running(self) -> bool:
        """Whether somebody answers, without waiting for it."""
        try:
            self._open("GET", "/v1/status", None, 5.0)
        except OSError:
            return False
        return True

    def _open(
        self, method: str, target: str, body: bytes | None, timeout_s: float | None
    ) -> http.client.HTTPResponse:
        connection = _Connection(self.place.api_socket, timeout_s)
        headers = {"Content-Type": "application/json", "Everup-Config": quote(self.place.config)}
        connection.request(method, target, body, headers)
        return connection.getresponse()

    def _whole(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Mapping[str, Any] | None,
        timeout_s: float | None,
    ) -> bytes:
        """The answer; asked for again if its engine dies in the middle of it."""
        until = time.monotonic() + _RESTART_S
        while True:
            try:
                return self._ask(method, path, query, body, timeout_s).read()
            except (OSError, http.client.HTTPException):
                if method != "GET" or time.monotonic() > until:
                    raise Failure(
                        "everup went away before it had answered", "see: everup status", NOT_RUNNING
                    ) from None

    def _ask(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Mapping[str, Any] | None,
        timeout_s: float | None,
    ) -> http.client.HTTPResponse:
        target = f"{path}?{urlencode(query, True, errors='backslashreplace')}" if query else path
        data = None if body is None else json.dumps(body).encode()
        response = self._patiently(method, target, data, timeout_s)
        if response.status >= 400:
            raise _refused(response)
        return response

    def _patiently(
        self, method: str, target: str, data: bytes | None, timeout_s: float | None
    ) -> http.client.HTTPResponse:
        until = time.monotonic() + _RESTART_S
        while True:
            try:
                response = self._open(method, target, data, timeout_s)
                # Refused before anything was done: everup is being replaced.
                if response.status != _BUSY or time.monotonic() > until:
                    return response
                response.close()
                time.sleep(0.05)
            except PermissionError:
                raise Failure(
                    "this everup belongs to another user", "ask as that user or as root"
                ) from None
            except TimeoutError:
                raise SilentError(
                    f"everup does not answer on {self.place.api_socket}",
                    f"is its engine stopped? journal and logs are in {self.place.state_dir}",
                ) from None
            except (OSError, http.client.HTTPException):
                if time.monotonic() > until or not keeper_lives(self.place):
                    break
                time.sleep(0.05)
        if keeper_lives(self.place):
            raise Failure(
                "everup is starting and does not answer yet", "again in a moment", NOT_RUNNING
            )
        raise Failure(
            f"everup is not running for {self.place.config}", "start it: everup up -d", NOT_RUNNING
        )


def _refused(response: http.client.HTTPResponse) -> Failure:
    try:
        answer = json.loads(response.read())
        return Failure(answer["error"], answer["hint"])
    except (ValueError, KeyError, TypeError):  # not our form: a fault of ours
        return Failure(f"everup answers {response.status} {response.reason}", "see its everup.log")


def keeper_lives(place: Place) -> bool:
    """Whether some keeper holds the lock of the state directory."""
    import fcntl

    try:
        lock = os.open(place.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return os.geteuid() != 0 and os.path.exists(place.api_socket)  # another user's
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
    return False
