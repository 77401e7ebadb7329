"""Zabbix' API: JSON-RPC over HTTP, one question at a time, each of bounded time and size."""

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

_MOST_BYTES: Final = 32 << 20
_PIECE: Final = 1 << 16
_PAGE: Final = "/api_jsonrpc.php"
OLDEST: Final = (6, 0)


class ApiError(Exception):
    """The API was not reached, or refuses; the text says what it said."""


class Api:
    """One Zabbix frontend. A connection of its own for each question: these are rare."""

    def __init__(self, url: str, *, timeout_s: float = 30.0, ca: str | None = None) -> None:
        """``ca``: certificates in PEM, in place of the system's. Raises ``ApiError`` where these
        are none, or ``url`` is none."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            text = f"{url!r} is no address of a Zabbix frontend, like https://zabbix.example/zabbix"
            raise ApiError(text)
        self._host, self._port = parts.hostname, port
        self._path = parts.path.removesuffix(_PAGE).rstrip("/") + _PAGE
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._path}"
        self._tls = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cadata=ca)
            except (OSError, ValueError) as error:
                raise ApiError(f"the file of certificates holds none: {error}") from None
        self._timeout_s = timeout_s
        self._token = ""
        self._version: tuple[int, int] | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Give the first two numbers of its version. Raises ``ApiError``, also for one that is too
        old."""
        if self._version is None:
            said = str(self._ask("apiinfo.version", {}, {}, {}))
            try:
                first, second, *_ = said.split(".")
                found = int(first), int(second)
            except ValueError:
                raise ApiError(f"{self._shown}: it says that its version is {said!r:.50}") from None
            if found < OLDEST:
                raise ApiError(f"it is Zabbix {said}; everup needs 6.0 or later")
            self._version = found
        return self._version

    def login(self, user: str, password: str) -> None:
        """Be that user from now on. Raises ``ApiError``."""
        self._token = str(self.ask("user.login", username=user, password=password))

    def use(self, token: str) -> None:
        """Be whom an API token belongs to from now on."""
        self._token = token

    def logout(self) -> None:
        """End what ``login`` began."""
        with contextlib.suppress(ApiError):
            self._ask_as("user.logout", [])
        self._token = ""

    def ask(self, method: str, **params: Any) -> Any:
        """Ask, and give the result. Raises ``ApiError``."""
        return self._ask_as(method, params)

    def _ask_as(self, method: str, params: Any) -> Any:
        if not self._token:
            return self._ask(method, params, {}, {})
        if self.version >= (6, 4):
            return self._ask(method, params, {"Authorization": f"Bearer {self._token}"}, {})
        return self._ask(method, params, {}, {"auth": self._token})

    def _ask(
        self, method: str, params: Any, headers: Mapping[str, str], more: Mapping[str, str]
    ) -> Any:
        body = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1, **more}
        try:
            status, text = self._post(json.dumps(body).encode(), headers)
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{self._shown}: {_words(error)}") from None
        if status != 200:
            raise ApiError(f"{self._shown}: HTTP status {status}: {text[:100]!r}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            raise ApiError(f"{self._shown} is no Zabbix API: it says {text[:100]!r}") from None
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        refusal = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(refusal, dict):
            raise ApiError(f"{self._shown} is no Zabbix API: it says {text[:100]!r}")
        raise ApiError(f"{method}: {refusal.get('message')} {refusal.get('data')}"[:500])

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        until = time.monotonic() + self._timeout_s
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        kind = {"Content-Type": "application/json-rpc", "Connection": "close"}
        try:
            connection.request("POST", self._path, body, {**kind, **headers})
            answer = connection.getresponse()
            if 300 <= answer.status < 400:
                where = answer.getheader("Location")
                raise OSError(f"it sends us to {where!r:.200}: give that address")
            pieces, size = [], 0
            while piece := answer.read1(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > _MOST_BYTES:
                    raise OSError(f"its answer is larger than {_MOST_BYTES >> 20} MiB")
                if time.monotonic() > until:
                    raise TimeoutError
            return answer.status, b"".join(pieces)
        finally:
            connection.close()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS there: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, socket.gaierror):
        return f"no such host: {error.strerror}"
    if isinstance(error, http.client.HTTPException):
        return f"it does not speak HTTP: {type(error).__name__} {error}"[:200]
    return str(error) or type(error).__name__
