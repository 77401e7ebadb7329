"""Each rule knows the words of real programs, and stays silent for what only looks alike."""

import pytest

from everup.rooms.locate.exits import code_words, signal_words
from everup.rooms.locate.rules import RULES, match

SAID = [
    ("gpu_memory", "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 50.00 GiB. "
     "GPU 0 has a total capacity of 139.81 GiB of which 40.00 GiB is free."),
    ("memory", "MemoryError"),
    ("memory", "terminate called after throwing an instance of 'std::bad_alloc'"),
    ("memory", "Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space"),
    ("memory", "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"),
    ("address_in_use", "OSError: [Errno 98] Address already in use"),
    ("address_in_use", "ERROR:    [Errno 98] error while attempting to bind on address "
     "('127.0.0.1', 8000): address already in use"),
    ("address_in_use", "Error: listen EADDRINUSE: address already in use 127.0.0.1:3000"),
    ("address_in_use", "nginx: [emerg] bind() to 0.0.0.0:80 failed (98: Address already in use)"),
    ("address_in_use", "listen tcp 127.0.0.1:8080: bind: address already in use"),
    ("too_many_clients", 'FATAL:  sorry, too many clients already'),
    ("too_many_clients", "sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 "
     "reached, connection timed out, timeout 30.00"),
    ("credentials", 'FATAL:  password authentication failed for user "shop"'),
    ("credentials", "ERROR 1045 (28000): Access denied for user 'shop'@'localhost'"),
    ("credentials", "redis.exceptions.AuthenticationError: WRONGPASS invalid username-password"),
    ("refused", "ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 5432)"),
    ("refused", "Error: connect ECONNREFUSED 127.0.0.1:6379"),
    ("refused", "dial tcp 127.0.0.1:5432: connect: connection refused"),
    ("refused", 'connection to server at "127.0.0.1", port 5432 failed: Connection refused'),
    ("refused", "requests.exceptions.ConnectionError: [Errno 111] Connection refused"),
    ("name", "Error: getaddrinfo ENOTFOUND db.internal"),
    ("name", "dial tcp: lookup db.internal on 127.0.0.53:53: no such host"),
    ("name", "socket.gaierror: [Errno -2] Name or service not known"),
    ("name", 'could not translate host name "db" to address: Temporary failure'),
    ("certificate", "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate "
     "verify failed: certificate has expired (_ssl.c:1006)"),
    ("certificate", "x509: certificate signed by unknown authority"),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/var/lib/shop/data.db'"),
    ("disk_full", "Error: ENOSPC: no space left on device, write"),
    ("read_only", "OSError: [Errno 30] Read-only file system: '/srv/shop/cache'"),
    ("descriptors", "OSError: [Errno 24] Too many open files"),
    ("descriptors", "accept4: too many open files; retrying in 5ms"),
    ("module", "ModuleNotFoundError: No module named 'flask'"),
    ("module", "Error: Cannot find module 'express'"),
    ("module", "ImportError: cannot import name 'Shop' from 'shop.models'"),
    ("module", "java.lang.ClassNotFoundException: org.shop.Main"),
    ("library", "./shop: error while loading shared libraries: libpq.so.5: cannot open shared "
     "object file: No such file or directory"),
    ("syntax", "SyntaxError: invalid syntax"),
    ("variable", "KeyError: 'DATABASE_URL'"),
    ("variable", "environment variable DATABASE_URL is not set"),
    ("permission", "PermissionError: [Errno 13] Permission denied: '/etc/shop/key.pem'"),
    ("permission", "Error: EACCES: permission denied, open '/etc/shop/key.pem'"),
    ("program", "sh: 1: gunicorn: not found"),
    ("program", "bash: line 1: gunicorn: command not found"),
    ("file", "FileNotFoundError: [Errno 2] No such file or directory: 'settings.json'"),
    ("file", "open settings.json: no such file or directory"),
    ("schema", 'psycopg2.errors.UndefinedTable: relation "orders" does not exist'),
    ("schema", "sqlite3.OperationalError: no such table: orders"),
    ("lock", "sqlite3.OperationalError: database is locked"),
    ("timeout", "asyncpg.exceptions.ConnectionDoesNotExistError: [Errno 110] Connection timed out"),
    ("timeout", "context deadline exceeded"),
    ("config", "nginx: [emerg] 12#12: unknown directive \"lisen\" in /etc/nginx/nginx.conf:4"),
    ("config", "shop: error: unrecognized arguments: --prot"),
]  # fmt: skip
FINE = [
    "INFO:     Application startup complete.",
    '127.0.0.1 - - [30/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 12',
    "listening on 127.0.0.1:8080",
    "worker 3 ready",
    "loaded 40 modules",
    "",
]


@pytest.mark.parametrize(("kind", "line"), SAID, ids=[f"{k}-{n}" for n, (k, _) in enumerate(SAID)])
def test_a_line_names_its_cause(kind: str, line: str) -> None:
    found = match(line)
    assert found is not None, line
    assert found.rule.kind == kind
    assert "{" not in found.says + found.then


def test_every_rule_has_a_line() -> None:
    assert {rule.kind for rule in RULES} == {kind for kind, _ in SAID}


@pytest.mark.parametrize("line", FINE)
def test_no_rule_knows_what_is_well(line: str) -> None:
    assert match(line) is None


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 5432)", ":5432"),
        ("Error: connect ECONNREFUSED 127.0.0.1:6379", "127.0.0.1:6379"),
        ("ModuleNotFoundError: No module named 'flask'", "flask"),
        ("OSError: [Errno 28] No space left on device: '/var/lib/shop/data.db'", "/var/lib/shop"),
        ("KeyError: 'DATABASE_URL'", "DATABASE_URL"),
        ("Error: getaddrinfo ENOTFOUND db.internal", "db.internal"),
    ],
)
def test_what_matters_is_in_the_sentence(line: str, word: str) -> None:
    found = match(line)
    assert found is not None
    assert word in found.says


@pytest.mark.parametrize(
    "line", ["a" * 5000, "connection " * 400, "'" * 3000, "/x" * 2000 + ":", "(" * 3000, "\x1b[31m"]
)
def test_odd_lines_cost_little(line: str) -> None:
    match(line)  # the bound on the length keeps every pattern short


def test_words_of_ends() -> None:
    assert "native code" in signal_words("SIGSEGV, core dumped")
    assert signal_words("SIGRTMIN+3") == ""
    assert "SIGKILL" in code_words(137)
    assert "not there" in code_words(127)
    assert code_words(3) == ""
