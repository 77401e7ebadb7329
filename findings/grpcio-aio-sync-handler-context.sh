#!/bin/sh
# grpcio 1.85.3: a server of grpc.aio takes handlers that are a plain `def`, and runs them in a
# thread. The context that such a handler gets lacks methods that the context of an `async def` has
# in the same server, and that of any handler in a grpc.server: code(), details() and
# trailing_metadata() are not there, so an interceptor or a log line that reads the status it has
# just set works until somebody writes the handler without `async`.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
"$place/venv/bin/python" - <<'PY'
import asyncio
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc.aio

NAMES = ("code", "details", "trailing_metadata")
seen = {}


def lacks(context):
    return [name for name in NAMES if not hasattr(context, name)]


def plain(request, context):
    seen["plain"] = lacks(context)
    return request


async def asynchronous(request, context):
    seen["async"] = lacks(context)
    return request


def old(request, context):
    seen["grpc.server"] = lacks(context)
    return request


def handlers(**methods):
    made = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in methods.items()}
    return grpc.method_handlers_generic_handler("it", made)


async def ask():
    server = grpc.aio.server(migration_thread_pool=ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handlers(plain=plain, asynchronous=asynchronous),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for name in ("plain", "asynchronous"):
            await channel.unary_unary(f"/it/{name}")(b"x")
    await server.stop(None)


asyncio.run(ask())
server = grpc.server(ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((handlers(old=old),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    channel.unary_unary("/it/old")(b"x")
server.stop(None)
for where, missing in sorted(seen.items()):
    print(f"{where}: the context lacks {missing or 'nothing'}")
assert seen["async"] == [] and seen["grpc.server"] == [], seen
if not seen["plain"]:
    raise SystemExit("CHANGED: a plain handler in grpc.aio has them now")
print("as described: only the plain handler in a server of grpc.aio lacks them")
PY
