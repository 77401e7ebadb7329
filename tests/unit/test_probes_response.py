"""The judge of HTTP responses: any bytes, cut up in any way, give one verdict."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from everup.adapters.probes._response import (
    BODY_BYTES,
    HEAD_BYTES,
    Check,
    Response,
    new_response,
)


def judge(
    data: bytes,
    *,
    cuts: list[int] | None = None,
    status: tuple[int, int] = (200, 399),
    body: str | None = None,
    head_only: bool = False,
) -> Response:
    pattern = re.compile(body) if body is not None else None
    response = new_response(Check(*status, pattern, head_only))
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts or [])})
    for start, end in pairwise(edges):
        if response.feed(data[start:end]):
            break
    else:
        response.end()
    assert response.done
    return response


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    ("data", "ok", "detail"),
    [
        (OK, True, "200 OK"),
        (b"HTTP/1.0 204\r\n\r\n", True, "204 No Content"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", True, "301 Moved"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False, "503 Service Unavailable"),
        (b"HTTP/1.1 400 Not\x07 g\xf6\xf6d\r\n\r\n", False, "400 Not  gööd"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True, "200 OK"),
        (b"HTTP/1.1 103 Early\r\nConnection: close\r\n\r\n" + OK, True, "200 OK"),
        (b"HTTP/1.0 100 Continue\r\n\r\nHTTP/1.0 500 No\r\n\r\n", False, "500 No"),
        (
            b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n..",
            False,
            "101 Switch",
        ),
        (OK + b"HTTP/1.1 500 Another\r\n\r\n", True, "200 OK"),
        (b"", False, "connection closed without an answer"),
        (b"HTTP/1.1 200", False, "connection closed within the headers (12 bytes received)"),
    ],
)
def test_verdicts(data: bytes, ok: bool, detail: str) -> None:
    for cuts in ([], list(range(len(data)))):
        response = judge(data, cuts=cuts)
        assert (response.ok, response.detail) == (ok, detail)


def test_what_is_not_http_is_shown() -> None:
    detail = judge(b"SSH-2.0-x\r\n").detail
    assert detail == "connected, but the answer is not HTTP: b'SSH-2.0-x\\r\\n'"
    assert judge(b"\0" * 999).detail.endswith("...")
    assert "broken HTTP" in judge(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n").detail


def test_only_1xx_is_no_answer() -> None:
    assert judge(b"HTTP/1.1 100 Continue\r\n\r\n").detail.startswith("connection closed within")


@pytest.mark.parametrize(
    ("status", "ok"), [((200, 399), False), ((404, 404), True), ((400, 499), True)]
)
def test_status_ranges(status: tuple[int, int], ok: bool) -> None:
    assert judge(b"HTTP/1.1 404 Not Found\r\n\r\n", status=status).ok is ok


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "body", "ok"),
    [
        (OK, "^hello$", True),
        (OK, "goodbye", False),
        (CHUNKED, "^hello$", True),
        (CHUNKED[:-5], "hello", False),  # the last chunk is missing
        (OK[:-1], "hell", False),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "^hello$", True),  # ends with the connection
        (b"HTTP/1.1 204 No\r\n\r\n", "^$", True),
        (b"HTTP/1.1 200 OK\r\n\r\n\xff\xfehello", "hello", True),
        (b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nhello", "hello", False),
        (b"HTTP/1.1 102 P\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello", "hello", True),
    ],
)
def test_bodies(data: bytes, body: str, ok: bool) -> None:
    for cuts in ([], list(range(len(data)))):
        assert judge(data, cuts=cuts, body=body).ok is ok


def test_the_detail_names_the_pattern_in_one_short_line() -> None:
    assert judge(OK, body="bye").detail == "200 OK, but the body does not match /bye/"
    detail = judge(OK, body="(?x) a\n" + "b" * 500).detail
    assert len(detail) <= 200
    assert detail.isprintable()


def test_head_has_no_body_to_wait_for() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert judge(data, head_only=True).complete
    assert judge(data, head_only=True, body="^$").ok
    assert not judge(data, head_only=True, body="x").ok


def test_without_a_pattern_the_headers_are_enough() -> None:
    response = new_response(Check(200, 399, None, False))
    assert response.feed(OK[:-5])
    assert response.ok
    assert not response.complete
    assert response.skip(b"hello")


@given(cuts=st.lists(st.integers(0, 1 << 17), max_size=20), extra=st.integers(0, 2))
def test_headers_may_be_32_kib(cuts: list[int], extra: int) -> None:
    start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\n\r\n"
    data = start + b"x" * (HEAD_BYTES - len(start) - len(end) + extra) + end + b"body"
    response = judge(data, cuts=cuts)
    assert response.ok is (extra == 0)
    if extra:
        assert "32 KiB" in response.detail


def test_endless_1xx_are_bounded() -> None:
    assert "32 KiB" in judge(b"HTTP/1.1 100 Continue\r\n\r\n" * 3000).detail


@given(cuts=st.lists(st.integers(0, 1 << 18), max_size=20))
def test_the_first_64_kib_of_the_body_are_searched(cuts: list[int]) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    fill = b"x" * (BODY_BYTES - 3)
    assert judge(head + fill + b"yes" + b"z" * 99999, cuts=cuts, body="yes").ok
    assert not judge(head + fill + b"yyes" + b"z" * 99999, cuts=cuts, body="yes").ok


def test_absurd_framing_is_bounded() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = new_response(Check(200, 200, re.compile("x"), False))
    response.feed(head)
    for _ in range(200):
        if response.feed(b"1;" + b"e" * 10000 + b"\r\nx\r\n"):
            break
    assert response.done
    assert not response.ok


pieces = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
                b"HTTP/1.0 503 \r\n",
                b"Content-Length: 3\r\n",
                b"Content-Length: 99999999999999999999999\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: close\r\n",
                b"\r\n",
                b"3\r\nabc\r\n",
                b"0\r\n\r\n",
                b"abc",
            ]
        ),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=400)
@given(
    data=pieces,
    cuts=st.lists(st.integers(0, 600), max_size=12),
    body=st.sampled_from([None, "abc", "^$"]),
    head_only=st.booleans(),
)
@example(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", [3], "abc", False)
def test_any_bytes_give_one_verdict_however_they_are_cut(
    data: bytes, cuts: list[int], body: str | None, head_only: bool
) -> None:
    whole = judge(data, body=body, head_only=head_only)
    cut = judge(data, cuts=cuts, body=body, head_only=head_only)
    assert whole.ok is cut.ok
    assert len(cut.detail) <= 200
    assert cut.detail.isprintable()
    assert cut.progress().isprintable()


def lf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        OK,
        b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK,
    ],
)
def test_lines_may_end_with_a_bare_lf(data: bytes) -> None:
    """As clients of all kinds accept it; whole and byte by byte."""
    for answer in (lf(data), data.replace(b"\r\n", b"\n", 2)):
        for cuts in ([], list(range(len(answer)))):
            found = judge(answer, cuts=cuts, body="^hello$")
            assert (found.ok, found.detail) == (True, "200 OK")


def test_chunks_are_framed_as_they_should_be_where_headers_are_not() -> None:
    """llhttp takes a bare LF in headers, but not (rightly) after the size of a chunk."""
    headers = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"
    assert judge(headers + b"5\r\nhello\r\n0\r\n\r\n", body="^hello$").ok
    assert judge(headers + b"5\nhello\n0\n\n").ok


def test_spaces_after_the_size_of_a_chunk() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n"
    assert judge(chunked, body="^hello$").ok


HOSTS = frozenset({"shop.example", "localhost"})


@pytest.mark.parametrize(
    ("location", "same"),
    [
        ("/login", True),
        ("login?next=//evil.example", True),
        ("", True),
        ("https://shop.example/login", True),
        ("HTTP://SHOP.example.:8443/", True),
        ("//shop.example/x", True),
        ("http://localhost:1/", True),
        ("https://login.example/", False),
        ("//login.example/x", False),
        ("/\\login.example/x", False),
        ("http://shop.example@login.example/", False),
        ("http://shop.example.evil/", False),
        ("http://[::1", False),
        ("mailto:a@shop.example", False),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_no_success(location: str, same: bool, status: int) -> None:
    answer = f"HTTP/1.1 {status} R\r\nX: y\r\nlOcation: {location}\r\n\r\n".encode()
    for redirects, ok in (("same-host", same), ("never", False), ("any", True)):
        check = Check(200, 399, None, False, redirects, HOSTS)  # type: ignore[arg-type]
        response = new_response(check)
        assert response.feed(answer)
        assert response.ok is ok, (redirects, response.detail)
        assert response.detail.startswith(f"{status} R")
        assert ("redirects" in response.detail) is not ok


def test_what_is_no_redirect_may_have_a_location() -> None:
    check = Check(200, 399, None, False, "never", HOSTS)
    for answer in (
        b"HTTP/1.1 201 Made\r\nLocation: http://x/\r\n\r\n",
        b"HTTP/1.1 304 Same\r\n\r\n",
    ):
        response = new_response(check)
        assert response.feed(answer)
        assert response.ok
    hinted = (
        b"HTTP/1.1 103 Early\r\nLocation: http://x/\r\n\r\nHTTP/1.1 302 F\r\nLocation: /\r\n\r\n"
    )
    response = new_response(Check(200, 399, None, False, "same-host", HOSTS))
    assert response.feed(hinted)
    assert response.ok
