"""A policy in a channel, or around a server, of grpc.aio::

guard = Pipeline(Retry(), Breaker("stock"), Timeout(1.0), name="stock")
channel = grpc.aio.insecure_channel("stock:50051", interceptors=interceptors(guard))

server = grpc.aio.server(interceptors=[ServerInterceptor(Shed(), within_s=5)])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import Any

import grpc
import grpc.aio

from everup.tolerate._base import Policy
from everup.tolerate._served import Answered
from everup.tolerate.grpc import Call, Rules, heed, kept, name_of, pushback, sync, told
from everup.tolerate.http import Guard

__all__ = ["ServerInterceptor", "interceptors"]

_END = object()


def interceptors(policy: Policy, *, rules: Rules | None = None) -> list[Any]:
    """Make what guards the calls of a channel with ``policy``: one interceptor for each of the four
    kinds of calls, which grpc.aio wants apart. They do what ``sync.ClientInterceptor`` does."""
    guard = _Calls(policy, Rules() if rules is None else rules)
    return [_UnaryUnary(guard), _UnaryStream(guard), _StreamUnary(guard), _StreamStream(guard)]


class _Calls:
    """What the interceptors of one channel share."""

    def __init__(self, policy: Policy, rules: Rules) -> None:
        self.rules = rules
        self.guard = Guard(policy, self._attempt)

    def told(self, details: Any) -> Any:
        timeout, metadata = told(details, self.rules)
        return grpc.aio.ClientCallDetails(
            details.method,
            timeout,
            grpc.aio.Metadata(*metadata),
            details.credentials,
            details.wait_for_ready,
        )

    async def _attempt(self, call: Call) -> Any:
        call.number += 1
        rpc = await call.begin(self.told(call.details), call.request)
        try:
            await rpc
        except grpc.aio.AioRpcError as error:
            if self.rules.fails(name_of(error.code())):
                heed(error)
                raise
        return rpc

    async def run(self, continuation: Any, details: Any, request: Any, once: bool) -> Any:
        call = Call(details, request, continuation)
        repeats = not once and self.rules.may_repeat(call.method)
        return await self.guard.of(repeats)(call)


class _Interceptor:
    def __init__(self, calls: _Calls) -> None:
        self._calls = calls


class _UnaryUnary(_Interceptor, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._calls.run(continuation, client_call_details, request, once=False)


class _StreamUnary(_Interceptor, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await self._calls.run(continuation, client_call_details, request_iterator, once=True)


class _UnaryStream(_Interceptor, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(self._calls.told(client_call_details), request)


class _StreamStream(_Interceptor, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(self._calls.told(client_call_details), request_iterator)


class ServerInterceptor(sync.Handlers, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Guards each call of a server of grpc.aio with ``policy``, as ``sync.ServerInterceptor`` does
    one of grpc; and at the deadline an asynchronous handler is cancelled.

    A handler of a stream that writes its answers (``await context.write(...)``) is guarded to its
    end; one that yields them until the first.
    """

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Called by the server."""
        return sync.guarded(
            await continuation(handler_call_details), self.around, self.around_stream
        )

    def around(self, behavior: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A handler of one answer."""
        if not iscoroutinefunction(behavior):  # it runs in a thread
            return self.around_sync(behavior)

        async def handle(request: Any, context: Any) -> Any:
            return kept(await self._guarded(lambda: behavior(request, context), context))

        return handle

    def around_stream(self, behavior: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """A handler of a stream of answers."""
        if iscoroutinefunction(behavior):
            return self.around(behavior)
        if not isasyncgenfunction(behavior):
            return self.around_stream_sync(behavior)

        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            answers = behavior(request, context)
            got = kept(await self._guarded(lambda: anext(answers, _END), context))
            if got is not _END:
                yield got
                async for answer in answers:
                    yield answer

        return handle

    async def _guarded(self, make: Callable[[], Awaitable[Any]], context: Any) -> Any:
        async def run() -> Any:
            try:
                answer = await make()
            except Exception as error:
                return self._judged(context, error)
            return self._judged(context, None, answer)

        request = self._asked(context)
        tokens = request.set()
        try:
            return await request.guarded(self._policy, self._options).acall(run)
        except Answered as answered:
            return answered.args[0]
        except Exception as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            code, text, after = refusal
            trailing = pushback(context.trailing_metadata(), after)
            await context.abort(grpc.StatusCode[code], text, trailing or ())
        finally:
            request.reset(tokens)
