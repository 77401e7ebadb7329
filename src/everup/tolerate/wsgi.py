"""Policies around a service that speaks WSGI (Flask, Django, Pyramid, ...)::

app.wsgi_app = Middleware(app.wsgi_app, Shed(max_wait_s=0.5), within_s=5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from everup.tolerate._base import Policy
from everup.tolerate._clock import Clock
from everup.tolerate._options import Seconds
from everup.tolerate._served import Answered, Options, Request, check_policy

__all__ = ["Middleware"]

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]


class Middleware:
    """As ``everup.tolerate.asgi.Middleware``, for WSGI: the same options and answers.

    What is guarded is the call of ``app``, up to where it gives the body; what the body does while
    it is sent is not. A thread cannot be stopped: within the deadline code looks at ``check()`` and
    ``remaining()``, as the clients of ``everup.tolerate.http`` do. ``write()``, which WSGI has for
    old programs, is not for answers of 500 and more.
    """

    def __init__(
        self,
        app: App,
        policy: Policy | None = None,
        *,
        within_s: Seconds | None = None,
        arrival: str | None = None,
        retry_after_s: Seconds = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.app = app
        self._policy = check_policy(policy)
        self._options = Options(within_s, arrival, retry_after_s, clock)

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Called by the server."""

        def header(name: str) -> str | None:
            return environ.get("HTTP_" + name.upper().replace("-", "_"))

        request = Request(header, self._options)
        answer = _Answer(start_response)
        tokens = request.set()
        try:
            request.guarded(self._policy, self._options).call(self._run, environ, answer)
        except Answered:
            pass
        except Exception as error:
            instead = self._options.answer(error)
            if instead is None or answer.begun:
                raise
            status, text, after = instead
            body = f"{text}\n".encode()
            headers = [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(body))),
            ]
            if after is not None:
                headers.append(("Retry-After", after))
            start_response(f"{status} {text}", headers)
            return [body]
        finally:
            request.reset(tokens)
        answer.flush()
        return answer.body

    def _run(self, environ: Environ, answer: _Answer) -> None:
        answer.body = self.app(environ, answer.start)
        if answer.status >= 500:
            raise Answered


class _Answer:
    """What the app has said so far: passed on where it is well, or when it has ended."""

    def __init__(self, start_response: Start) -> None:
        self._start_response = start_response
        self._given: tuple[Any, ...] | None = None
        self._writer: Callable[[bytes], object] = start_response
        self.status = 0
        self.begun = False
        self.body: Iterable[bytes] = ()

    def start(self, status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
        """Given to the app as ``start_response``."""
        self.status = int(status[:3])
        if self.begun:  # by an app that begins as its body is read
            return self._start_response(status, headers, *error)
        self._given = (status, headers, *error)
        return self._write

    def flush(self) -> None:
        """Say what the app has said. One that says it as its body is read has not yet."""
        given, self._given = self._given, None
        if given is not None:
            self._start_response(*given)
        self.begun = True

    def _write(self, data: bytes) -> None:
        given, self._given = self._given, None
        if given is not None:
            self.begun = True
            self._writer = self._start_response(*given)
        self._writer(data)
