#!/bin/sh
# grpcio 1.85.3: a deadline is longer at the server than the client has set it. On the wire a timeout
# has few digits, and the client rounds up to what it can write: of 20 s the server is told of more
# than 20 s, by up to 1 %. A server that spends "the time that is left" spends more than its client
# waits, and its last answers come to nobody.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check grpcio==1.85.3
"$place/venv/bin/python" - <<'PY'
from concurrent.futures import ThreadPoolExecutor

import grpc

left = []


def handler(request, context):
    left.append(context.time_remaining())
    return request


server = grpc.server(ThreadPoolExecutor(1))
method = {"it": grpc.unary_unary_rpc_method_handler(handler)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("it", method),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
asked = (20.0, 150.0)
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/it/it")
    call(b"x")  # the connection is made
    left.clear()
    for timeout in asked:
        call(b"x", timeout=timeout)
server.stop(None)
for timeout, seen in zip(asked, left):
    print(f"the client waits {timeout:g} s, the server has {seen:.4f} s left")
if all(seen <= timeout for timeout, seen in zip(asked, left)):
    raise SystemExit("CHANGED: the server has no longer than the client waits")
print("as described: the server believes that it has longer than its client waits")
PY
