"""One probe over one socket: a state machine that the reactor and the timers drive."""

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Final

from everup.adapters import sock_diag
from everup.adapters.probes._base import Attempt, Judge, Owner
from everup.adapters.probes._plan import Plan
from everup.adapters.probes._reactor import READ, WRITE
from everup.adapters.probes._resolve import Address, Found
from everup.adapters.probes._response import SearchedResponse
from everup.adapters.probes._sockets import accepted_by_others, reset_on_close, talks_to_itself
from everup.adapters.probes._stage import Stage, timed_out
from everup.adapters.probes._words import error_words, one_line, own_trouble
from everup.model.spec import ACCEPTS

# socket.IP_BIND_ADDRESS_NO_PORT appears in Python 3.12.
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_SOCKET_TYPE: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_READ_BYTES: Final = 16 << 10
_RETRY_S: Final = 0.02
_DRAIN_S: Final = 1.0
_LOOK_S: Final = 0.002
_LOOK_MAX_S: Final = 0.05
"""Nothing tells a client when its connection is accepted; so it is looked at, ever less often."""
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH)
"""From a loopback address to one that the machine does not have."""
_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class SocketAttempt(Attempt):
    """An http, https or tcp probe.

    After the verdict on a response whose body is still on its way, the connection is read on for
    a moment: a service that writes its body to a closed connection logs an error.
    """

    __slots__ = (
        "_family", "_fd", "_left", "_look_s", "_others", "_response", "_search_task",
        "_sock", "_state", "_waiting",
    )  # fmt: skip

    def __init__(self, owner: Owner, plan: Plan, started_s: float, lateness_s: float) -> None:
        super().__init__(owner, plan, started_s, lateness_s)
        self._state = Stage.NEW
        self._sock: socket.socket | None = None
        self._fd = -1
        self._family = 0
        self._waiting = 0
        """Events registered with the reactor."""
        self._left = b""
        self._others: Found = []
        """Addresses still to be tried."""
        self._response: Judge | None = None
        self._search_task: asyncio.Task[None] | None = None
        self._look_s = _LOOK_S

    def begin(self) -> None:
        plan = self.plan
        if plan.error:
            self._fail(plan.error)
        elif plan.certificates is not None:
            self._state = Stage.LOADING
            found = self.owner.contexts.lookup(plan.certificates, self)
            if found is not None:
                self.on_loaded(found)
        else:
            self._find()

    def on_loaded(self, found: ssl.SSLContext | str) -> None:
        if self._state is not Stage.LOADING:
            return
        if isinstance(found, str):
            self._fail(found)
            return
        self.plan.tls = found
        self._find()

    def _find(self) -> None:
        plan = self.plan
        if plan.address is not None:
            self._open(plan.family, plan.address)
        else:
            self._state = Stage.RESOLVING
            found = self.owner.resolver.lookup(plan.name, self)
            if found is not None:
                self.on_resolved(found)

    def on_resolved(self, found: Found | str) -> None:
        if self._state is not Stage.RESOLVING:
            return
        if isinstance(found, str):
            self._fail(f"cannot resolve {self.plan.name[0]}: {found}")
            return
        if self.plan.source is not None:
            found = [row for row in found if row[0] == socket.AF_INET] or found
        self._others = found[1:]
        self._open(*found[0])

    def on_event(self) -> None:
        try:
            self._step()
        except (OSError, ValueError) as error:
            self._broke(error)

    def on_timer(self, now_s: float) -> None:
        if now_s < self.deadline_s:
            self.wake_s = self.deadline_s
            plan = self.plan
            if self._state is Stage.CONNECTING and isinstance(plan.address, str):
                self._connect(plan.address)
            elif self._state is Stage.QUEUED:
                self._look()
            elif self._state is Stage.NEW and plan.address is not None:
                self._open(plan.family, plan.address)
            return
        if self._state is Stage.NEW:  # others are always quicker: nobody can tell
            self._connected("accepted by another process that shares the socket")
            return
        if self._state is Stage.DRAINING:
            self._close()
            self.owner.ended(self)
            return
        try:
            # What has arrived in time counts, even if the loop only comes to it now.
            self._step()
            while self._state is Stage.READING and self._read():
                pass
        except (OSError, ValueError) as error:
            self._broke(error)
        if self._state not in (Stage.DRAINING, Stage.CLOSED):
            self._fail(self._timeout_words())

    def cancel(self) -> bool:
        if self._state is Stage.RESOLVING:
            self.owner.resolver.give_up(self.plan.name, self)
        self._close()
        return True

    # Connecting.

    def _open(self, family: int, address: Address | str) -> None:
        self._state = Stage.CONNECTING
        self._family = family
        try:
            sock = socket.socket(family, _SOCKET_TYPE)
        except OSError as error:
            self._refused(error.errno or 0)
            return
        self._sock = sock
        self._fd = sock.fileno()
        plan = self.plan
        try:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET and plan.source is not None:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind(plan.source)
            elif family == socket.AF_INET6 and plan.traffic_class:
                if plan.source is not None:
                    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                    sock.bind(plan.source)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, plan.traffic_class)
        except OSError as error:
            self._fail(f"cannot ask from {plan.source}: {error_words(error.errno or 0)}")
            return
        self._connect(address)

    def _connect(self, address: Address | str) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            code = sock.connect_ex(address)
        except (OSError, ValueError) as error:  # like a path too long for a Unix socket
            self._fail(one_line(str(error)))
            return
        if code == errno.EAGAIN and self._family == socket.AF_UNIX:
            # The queue of the listener is full, and nothing tells when it no longer is.
            self.wake_s = min(self.deadline_s, self.owner.now() + _RETRY_S)
        elif code in (0, errno.EINPROGRESS):
            # On loopback the connection is open by now.
            try:
                self._try_connected()
            except (OSError, ValueError) as error:
                self._broke(error)
        else:
            self._refused(code)

    def _try_connected(self) -> None:
        """Goes on if the connection is open, else waits for it."""
        sock, plan = self._sock, self.plan
        if sock is None:
            return
        if plan.check is not None and plan.tls is None:
            if self._response is None:
                self._response = plan.check.respond()
                self._left = plan.request
            self._send()  # fails with EAGAIN until the connection is open
            return
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._refused(error)
            return
        try:
            peer = sock.getpeername()
        except OSError:
            self._wait_for(WRITE)
            return
        if plan.tls is not None and plan.check is not None:
            self._response = plan.check.respond()
            self._sock = plan.tls.wrap_socket(
                sock, do_handshake_on_connect=False, server_hostname=plan.server_name
            )
            self._state = Stage.HANDSHAKE
            self._shake()
        elif self._family != socket.AF_UNIX and peer == sock.getsockname():
            self._fail(error_words(errno.ECONNREFUSED))
        elif plan.target.accept:
            self._state = Stage.QUEUED
            self._wait_for(READ)
            self._look()
        else:
            self._connected("connected")

    def _look(self) -> None:
        """Has the connection been accepted? everup itself keeps the listener, so that connecting
        always succeeds."""
        sock = self._sock
        if sock is None:
            return
        match sock_diag.accepted(sock):
            case True if not accepted_by_others(sock, self.plan.target.session):
                self._connected("accepted")
            case True:
                self._again()
            case None:
                self._connected("connected; whether it was accepted cannot be told here")
            case False:
                now_s = self.owner.now()
                self.wake_s = min(self.deadline_s, now_s + self._look_s)
                self._look_s = min(2 * self._look_s, _LOOK_MAX_S)

    def _again(self) -> None:
        """Another process, which shares the socket, was quicker: that says nothing of this one."""
        self._close()
        self._state = Stage.NEW
        self.wake_s = min(self.deadline_s, self.owner.now() + _LOOK_MAX_S)

    def _heard(self) -> None:
        """Something came before it was seen to be accepted: a word of the server, or the end."""
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(BlockingIOError):
                sock.recv(1)  # fails if it was reset: the queue it was in is no more
                if self.plan.target.session:  # it may be gone already from who has accepted it
                    self._again()
                else:
                    self._connected("accepted")

    def _connected(self, detail: str) -> None:
        self._close()
        self.owner.finished(self, True, detail)

    # Talking.

    def _step(self) -> None:
        match self._state:
            case Stage.READING:
                self._read()
            case Stage.CONNECTING:
                if self._waiting:
                    self._try_connected()
            case Stage.QUEUED:
                self._heard()
            case Stage.HANDSHAKE:
                self._shake()
            case Stage.SENDING:
                self._send()
            case Stage.DRAINING:
                self._drain()
            case _:
                pass

    def _shake(self) -> None:
        sock = self._sock
        if not isinstance(sock, ssl.SSLSocket):
            return
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._wait_for(READ)
        except ssl.SSLWantWriteError:
            self._wait_for(WRITE)
        else:
            self._state = Stage.SENDING
            self._left = self.plan.request
            self._send()

    def _send(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            sent = sock.send(self._left)
        except _WAIT:
            self._wait_for(WRITE)
            return
        if sent < len(self._left):
            self._left = self._left[sent:]
            self._state = Stage.SENDING
            self._wait_for(WRITE)
        else:
            self._state = Stage.READING
            self._wait_for(READ)

    def _read(self) -> bool:
        """Reads once (TLS: all there is, for epoll does not see what OpenSSL has read ahead);
        false if nothing was there."""
        sock, response = self._sock, self._response
        if sock is None or response is None:
            return False
        while True:
            try:
                data = sock.recv(_READ_BYTES)
            except _WAIT:
                return False
            if not data:
                response.end()
                self._decided(response, eof=True)
                return True
            if response.feed(data):
                self._decided(response, eof=False)
                return True
            if self.plan.tls is None:
                return True

    def _search(self, response: SearchedResponse, text: str, *, eof: bool) -> None:
        """It takes longer than the loop has time."""
        if self._waiting:
            self.owner.reactor.remove(self._fd)
            self._waiting = 0
        self._state = Stage.SEARCHING

        def done(found: bool) -> None:
            self._search_task = None
            if self._state is Stage.SEARCHING:
                response.judge(found)
                self._decided(response, eof=eof)
                if self.lingers:
                    self._wait_for(READ)

        left_s = max(0.001, self.deadline_s - self.owner.now())
        self._search_task = self.owner.searcher.aside(response.pattern, text, left_s, done)

    def _decided(self, response: Judge, *, eof: bool) -> None:
        if isinstance(response, SearchedResponse) and response.text is not None:
            self._search(response, response.text, eof=eof)
            return
        ok, detail = response.ok, response.detail
        if response.garbage and talks_to_itself(self._sock):
            detail = error_words(errno.ECONNREFUSED)
        if eof or response.complete or response.received == 0 or not response.headers_done:
            if response.complete and not eof:
                reset_on_close(self._sock)
            self._close()
        else:
            self._state = Stage.DRAINING
            self.lingers = True
            now_s = self.owner.now()
            self.wake_s = min(max(self.deadline_s, now_s), now_s + _DRAIN_S)
        self.owner.finished(self, ok, detail)

    def _drain(self) -> None:
        sock, response = self._sock, self._response
        if sock is None or response is None:
            return
        try:
            data = sock.recv(_READ_BYTES)
        except _WAIT:
            return
        except OSError:
            data = b""
        if not data or response.skip(data):
            if data:
                reset_on_close(self._sock)
            self._close()
            self.owner.ended(self)

    # Ends.

    def _broke(self, error: OSError | ValueError) -> None:
        """A call on the socket failed."""
        code = (error.errno or 0) if isinstance(error, OSError) else 0
        if isinstance(error, ssl.SSLCertVerificationError):
            self._fail(one_line(f"certificate verify failed: {error.verify_message}"))
        elif isinstance(error, ssl.SSLError):
            words = error.reason or "connection closed"
            self._fail(one_line(f"connected, but TLS failed: {words}"))
        elif not code:
            self._fail(one_line(f"cannot be asked: {error}"))
        elif self._state is Stage.CONNECTING:
            self._refused(code)
        elif self._state is Stage.HANDSHAKE:
            self._fail(f"connected, but TLS failed: {error_words(code)}")
        elif (response := self._response) is not None and response.received:
            self._fail(f"{error_words(code)} after {response.received} bytes of the answer")
        else:
            self._fail(f"{error_words(code)} without an answer")

    def _refused(self, code: int) -> None:
        """No connection: on to the next address, if there is one."""
        if self.plan.target.probe is ACCEPTS and code in _NOT_HERE:
            self._connected("its address is not here yet, so nobody can be asked")
        elif own_trouble(code, self._family):
            self.could_not_ask()
            self._fail(f"everup could not ask: {error_words(code)}")
        elif self._others:
            self._close()
            self._open(*self._others.pop(0))
        elif self._family == socket.AF_UNIX:
            self._fail(one_line(f"{error_words(code)} ({self.plan.target.unix})"))
        else:
            self._fail(error_words(code))

    def _fail(self, detail: str) -> None:
        self._close()
        self.owner.finished(self, False, detail)

    def _timeout_words(self) -> str:
        unix, response = self._family == socket.AF_UNIX, self._response
        progress = response.progress() if response is not None else "connected"
        return timed_out(self._state, self.plan, unix, progress)

    def _wait_for(self, events: int) -> None:
        if self._waiting == events:
            return
        if self._waiting:
            self.owner.reactor.modify(self._fd, events)
        else:
            self.owner.reactor.add(self._fd, events, self)
        self._waiting = events

    def _close(self) -> None:
        self._state = Stage.CLOSED
        if self._search_task is not None:
            self._search_task.cancel()
            self._search_task = None
        sock = self._sock
        if sock is not None:
            if self._waiting:
                self.owner.reactor.remove(self._fd)
                self._waiting = 0
            self._sock = None
            sock.close()
        if self._response is not None:
            self._response.release()
            self._response = None
