#!/bin/sh
# httptools 0.9.0 (llhttp inside): the leniency lenient_optional_cr_before_lf takes a bare line feed
# at the end of the status line and of header lines, but not after the size of a chunk. So a
# response that uses bare line feeds throughout is accepted when it has a Content-Length, and fails
# in the middle of its body when it is chunked.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check httptools==0.9.0
"$place/venv/bin/python" - <<'PY'
import httptools


class Response:
    def __init__(self):
        self.body, self.complete = b"", False

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete = True


def parse(data):
    response = Response()
    parser = httptools.HttpResponseParser(response)
    parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
    try:
        parser.feed_data(data)
    except httptools.HttpParserError as error:
        return str(error)
    return response.body if response.complete else "not complete"


sized = parse(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi")
chunked = parse(b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nhi\n0\n\n")
print("bare line feeds, Content-Length:", sized)
print("bare line feeds, chunked:", chunked)
assert sized == b"hi", "CHANGED"
assert chunked == "Expected LF after chunk size", "CHANGED"
print("as described: the leniency ends where the chunks begin")
PY
