"""A policy in a channel, or around a server, of grpc::

guard = Pipeline(Retry(), Breaker("stock"), Timeout(1.0), name="stock")
channel = grpc.intercept_channel(grpc.insecure_channel("stock:50051"), ClientInterceptor(guard))

server = grpc.server(ThreadPoolExecutor(), interceptors=[ServerInterceptor(Shed(), within_s=5)])
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from everup.tolerate._base import Policy
from everup.tolerate._served import Answered
from everup.tolerate.grpc import Call, Rules, Serving, heed, kept, name_of, pushback, told
from everup.tolerate.http import Guard

__all__ = ["ClientInterceptor", "ServerInterceptor"]

_END = object()


_Fields = namedtuple("_Fields", "method timeout metadata credentials wait_for_ready compression")


class _Details(_Fields, grpc.ClientCallDetails):  # type: ignore[misc]
    """What grpc asks for, changed."""


def _told(details: Any, rules: Rules) -> _Details:
    timeout, metadata = told(details, rules)
    return _Details(
        details.method,
        timeout,
        metadata,
        details.credentials,
        details.wait_for_ready,
        details.compression,
    )


class ClientInterceptor(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    """Guards the calls of a channel with ``policy``.

    A status that ``rules`` call a failure is one for the policy; the caller gets the last
    ``grpc.RpcError`` as without it. What policies raise comes out. Only methods that ``rules`` name
    are repeated, and none whose requests are a stream. Within a ``Deadline`` or a ``Timeout`` the
    timeout of a call is no longer than what is left; without one of its own, too.

    Calls whose answers are a stream are told deadline and priority, and not guarded: what happens
    in them happens after they have begun. A call by ``.future()`` is made before that returns.
    """

    def __init__(self, policy: Policy, *, rules: Rules | None = None) -> None:
        self.rules = Rules() if rules is None else rules
        self._guard = Guard(policy, self._attempt)

    def _attempt(self, call: Call) -> Any:
        call.number += 1
        outcome = call.begin(_told(call.details, self.rules), call.request)
        error = outcome.exception()
        if error is not None and self.rules.fails(name_of(outcome.code())):
            heed(error)
            raise error
        return outcome

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Called by the channel."""
        call = Call(client_call_details, request, continuation)
        return self._guard.of(self.rules.may_repeat(call.method))(call)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Called by the channel."""
        return self._guard.of(False)(Call(client_call_details, request_iterator, continuation))

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Called by the channel."""
        return continuation(_told(client_call_details, self.rules), request)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Called by the channel."""
        return continuation(_told(client_call_details, self.rules), request_iterator)


class Watched:
    """The context of a handler that runs in a thread of a server of grpc.aio, which does not tell
    what was said to it (grpcio 1.85)."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None
        self._trailing: Any = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        """What was said so far."""
        return self._code

    def set_code(self, code: Any) -> None:
        """As the context does it."""
        self._code = code
        self._context.set_code(code)

    def abort(self, code: Any, *details: Any, **more: Any) -> Any:
        """As the context does it."""
        self._code = code
        self._context.abort(code, *details, **more)

    def trailing_metadata(self) -> Any:
        """What was set so far."""
        return self._trailing

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """As the context does it."""
        self._trailing = trailing_metadata
        self._context.set_trailing_metadata(trailing_metadata)


class Handlers(Serving):
    """Handlers that run in threads, guarded."""

    def around_sync(self, behavior: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A handler of one answer."""

        def handle(request: Any, context: Any) -> Any:
            return kept(self._guarded_sync(lambda seen: behavior(request, seen), context))

        return handle

    def around_stream_sync(
        self, behavior: Callable[[Any, Any], Iterator[Any]]
    ) -> Callable[[Any, Any], Iterator[Any]]:
        """A handler of a stream of answers."""

        def handle(request: Any, context: Any) -> Iterator[Any]:
            answers: list[Iterator[Any]] = []

            def first(seen: Any) -> Any:
                answers.append(iter(behavior(request, seen)))
                return next(answers[0], _END)

            got = kept(self._guarded_sync(first, context))
            if got is not _END:
                yield got
                yield from answers[0]

        return handle

    def _guarded_sync(self, make: Callable[[Any], Any], context: Any) -> Any:
        if not hasattr(context, "code"):
            context = Watched(context)

        def run() -> Any:
            try:
                answer = make(context)
            except Exception as error:
                return self._judged(context, error)
            return self._judged(context, None, answer)

        request = self._asked(context)
        tokens = request.set()
        try:
            return request.guarded(self._policy, self._options).call(run)
        except Answered as answered:
            return answered.args[0]
        except Exception as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            code, text, after = refusal
            trailing = pushback(context.trailing_metadata(), after)
            if trailing is not None:
                context.set_trailing_metadata(trailing)
            return context.abort(grpc.StatusCode[code], text)  # which raises
        finally:
            request.reset(tokens)


class ServerInterceptor(Handlers, grpc.ServerInterceptor):  # type: ignore[misc]
    """Guards each call of a server with ``policy``: a ``Shed``, ``Limit``, ``Bulkhead``,
    ``RateLimit``, ``Meter``, or several in a ``Pipeline``; default: none.

    A call sets ``arrived`` and ``priority`` (metadata ``priority: u=...``, RFC 9218) for what runs
    under it, and a ``Deadline``: that of the caller, ``within_s`` (default None: no limit) at most.

    **UNAVAILABLE** with ``grpc-retry-pushback-ms`` (gRFC A6) where a policy rejects, this one's or
    one in the handler: its ``retry_after_s``, else that of the interceptor (default 1).
    **DEADLINE_EXCEEDED** where the deadline is over, or a ``Timeout`` in the handler.

    ``codes`` are failures for ``policy``, default ``FAILURES``, and so is any other exception; all
    else that a handler ends with is an answer. Where the answers are a stream, the call is guarded
    until the first of them. A handler cannot be stopped: at the deadline it has to look, with
    ``check()`` or ``remaining()``.
    """

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        """Called by the server."""
        return guarded(
            continuation(handler_call_details), self.around_sync, self.around_stream_sync
        )


def guarded(handler: Any, around: Callable[..., Any], around_stream: Callable[..., Any]) -> Any:
    """A handler of any of the four kinds, guarded; None: there is no such method."""
    if handler is None:
        return None
    into = "stream" if handler.request_streaming else "unary"
    out, wrap = ("stream", around_stream) if handler.response_streaming else ("unary", around)
    make = getattr(grpc, f"{into}_{out}_rpc_method_handler")
    behavior = wrap(getattr(handler, f"{into}_{out}"))
    return make(behavior, handler.request_deserializer, handler.response_serializer)
