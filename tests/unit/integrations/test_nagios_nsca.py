"""NSCA's packets as its daemon reads them, and its table."""

import struct
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup import config
from everup.integrations.nagios import nsca
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.config import target
from everup.integrations.standing import Level

LAYOUT = ">hhIIh64s128s4096s2x"
TEXT = st.text(max_size=6000).map(lambda text: text.encode("utf-8", "replace").decode())


def read(packet: bytes) -> tuple[int, int, str, str, str]:
    """As data in a C program: each text ends at its zero byte."""
    version, _, crc, at, code, *texts = struct.unpack(LAYOUT, packet)
    assert (len(packet), version) == (4304, 3)
    assert zlib.crc32(packet[:4] + bytes(4) + packet[8:]) == crc
    assert all(b"\0" in text for text in texts)
    host, service, output = (text.partition(b"\0")[0].decode() for text in texts)
    return at, code, host, service, output


def test_a_packet() -> None:
    result = Result("box", "web", Level.CRITICAL, "down; see\nlog", 12.5, perf="a=1")
    assert read(nsca.packet(result, 99)) == (99, 2, "box", "web", "down: see log|a=1")
    assert read(nsca.packet(Result("box", "", Level.CRITICAL, "x", 1.0), 1))[1:4] == (1, "box", "")


@given(TEXT, TEXT.map(lambda text: text[:40]), st.sampled_from(Level), st.integers(0, 1 << 40))
def test_any_text_and_name(text: str, name: str, level: Level, at: int) -> None:
    result = Result(f"h{name[:10]}", f"s{name[:20]}", level, text, 1.0, long=text)
    _, code, host, service, output = read(nsca.packet(result, at))
    assert code == level
    assert len(f"{host}{service}{output}".encode()) < 4096
    assert not set(";|\n\r") & set(output)
    assert not set(";|\n\r") & set(host + service)


@pytest.mark.parametrize(("host", "service"), [("h" * 64, "s"), ("h", "s" * 128), ("h" * 9000, "")])
def test_names_for_which_there_is_no_room(host: str, service: str) -> None:
    with pytest.raises(ValueError, match=r"too long|room for names"):
        nsca.packet(Result(host, service, Level.OK, "fine", 1.0), 1)


def test_what_a_daemon_says_first() -> None:
    found = nsca.hello(bytes(range(128)) + struct.pack(">I", 77))
    assert (found.iv, found.at) == (bytes(range(128)), 77)


@given(st.binary(min_size=128, max_size=128), st.binary(max_size=300))
def test_xor_is_its_own_inverse(iv: bytes, password: bytes) -> None:
    plain = nsca.packet(Result("box", "web", Level.OK, "fine", 1.0), 1)
    encrypt = nsca.xor(iv, password)
    assert encrypt(encrypt(plain)) == plain
    by_hand = bytes(b ^ iv[i % 128] for i, b in enumerate(plain))
    if password:
        by_hand = bytes(b ^ password[i % len(password)] for i, b in enumerate(by_hand))
    assert encrypt(plain) == by_hand


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nagios.example", ("nagios.example", 5667)),
        ("192.0.2.7:99", ("192.0.2.7", 99)),
        ("[2001:db8::1]", ("2001:db8::1", 5667)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_targets(text: str, found: tuple[str, int]) -> None:
    assert target(text, 5667) == found


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:0", "a:65536", "a b", "2001:db8::1", "-a", "a/"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port"):
        target(text, 5667)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "servers is missing"),
        ("servers = []", "at least one"),
        ('servers = ["a:b"]', "expected host"),
        ('servers = ["a"]', "needs password_file"),
        ('servers = ["a"]\nmethod = "des"', "unknown choice"),
    ],
)
def test_tables_that_are_refused(text: str, says: str) -> None:
    body = f'[service.web]\ncommand = ["web"]\n[nagios.nsca]\n{text}'
    [problem] = config.check(body, path="everup.toml", directory="/srv").problems
    assert says in problem.message


LIBRARY = """
import sys
import everup.integrations.nagios.edge
from everup.integrations.nagios.edge.nsca import ciphers
ciphers("none"), ciphers("xor")
assert "cryptography" not in sys.modules, "who does not need it pays for it"
sys.modules["cryptography"] = None
try:
    ciphers("rijndael-128")
except OSError as error:
    print(error)
"""


def test_the_library_is_loaded_by_who_needs_it_alone() -> None:
    argv = [sys.executable, "-c", LIBRARY]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'pip install "everup[nsca]"' in done.stdout
