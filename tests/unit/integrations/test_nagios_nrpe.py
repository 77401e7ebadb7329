"""NRPE's packets: what is read, what is refused, what is answered."""

import random
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup import config
from everup.integrations.nagios.nrpe import (
    HEAD_BYTES,
    MOST_QUERY_BYTES,
    MOST_TEXT_BYTES,
    MOST_TEXT_BYTES_V2,
    PacketError,
    Query,
    answer,
    fitted,
    parse,
    rest_bytes,
)

SEED = 20261130
ROUNDS = 100_000


def query(version: int, text: bytes, kind: int = 1) -> bytes:
    """A packet as check_nrpe 4.1.0 sends it."""
    if version == 2:
        body = (text + b"\0").ljust(1024, b"\xa5")
        packet = struct.pack(">hhIh1024s2x", 2, kind, 0, 0, body)
    else:
        body = text + b"\0"
        packet = struct.pack(">hhIhhi", version, kind, 0, 0, 0, len(body)) + body
        packet += bytes(3 if version == 3 else 0)
    return signed(packet)


def signed(packet: bytes) -> bytes:
    blank = packet[:4] + bytes(4) + packet[8:]
    return packet[:4] + struct.pack(">I", zlib.crc32(blank)) + packet[8:]


VERSIONS = pytest.mark.parametrize("version", [2, 3, 4])


@VERSIONS
def test_a_query(version: int) -> None:
    packet = query(version, b"check_everup")
    assert len(packet) == HEAD_BYTES + rest_bytes(packet[:HEAD_BYTES])
    assert parse(packet) == Query(version, "check_everup")
    assert parse(query(version, b"web!a!b c")) == Query(version, "web", ("a", "b c"))
    assert parse(query(version, b"web!")).arguments == ("",)


@VERSIONS
@pytest.mark.parametrize(
    ("text", "why"),
    [(b"", "empty"), (b"a b", "printable"), (b"a\n", "printable"), (b"\xff", "printable")],
)
def test_what_is_no_command(version: int, text: bytes, why: str) -> None:
    with pytest.raises(PacketError, match=why):
        parse(query(version, text))


@VERSIONS
def test_every_flipped_bit_is_noticed(version: int) -> None:
    packet = query(version, b"check_everup")
    for place in range(min(len(packet), 60) * 8):
        broken = bytearray(packet)
        broken[place // 8] ^= 1 << place % 8
        with pytest.raises(PacketError):
            parse(bytes(broken))


@pytest.mark.parametrize("version", [-1, 0, 1, 5, 0x7FFF])
def test_other_versions(version: int) -> None:
    head = struct.pack(">hhIhhi", version, 1, 0, 0, 0, 10)
    with pytest.raises(PacketError, match="valid: 2, 3, 4"):
        rest_bytes(head)


@pytest.mark.parametrize("length", [-(2**31), -1, 0, MOST_QUERY_BYTES + 1, 2**31 - 1])
@pytest.mark.parametrize("version", [3, 4])
def test_lengths(version: int, length: int) -> None:
    with pytest.raises(PacketError, match="valid: 1 to 4096"):
        rest_bytes(struct.pack(">hhIhhi", version, 1, 0, 0, 0, length))


@VERSIONS
def test_an_answer_is_no_query(version: int) -> None:
    with pytest.raises(PacketError, match="type 2"):
        parse(answer(version, 0, "fine"))


def read_as_the_client_does(packet: bytes) -> tuple[int, int, str]:
    version, kind, crc, code = struct.unpack_from(">hhIh", packet)
    assert kind == 2
    assert zlib.crc32(packet[:4] + bytes(4) + packet[8:]) == crc
    if version == 2:
        assert len(packet) == 1036
        body = packet[10:1034]
    else:
        (length,) = struct.unpack_from(">i", packet, 12)
        assert len(packet) == 16 + length + (3 if version == 3 else 0)
        body = packet[16 : 16 + length]
    assert b"\0" in body
    return version, code, body.partition(b"\0")[0].decode()


@VERSIONS
@given(text=st.text(max_size=3000), code=st.integers(0, 3))
def test_answers(version: int, text: str, code: int) -> None:
    got = read_as_the_client_does(answer(version, code, text))
    assert got[:2] == (version, code)
    most = MOST_TEXT_BYTES_V2 if version == 2 else MOST_TEXT_BYTES
    clean = text.replace("\0", "").encode("utf-8", "replace").decode()
    assert got[2] == clean if len(clean.encode()) <= most else len(got[2].encode()) <= most


@pytest.mark.parametrize(
    ("text", "most", "left"),
    [
        ("OK - fine | a=1\nmore\nlast", 100, "OK - fine | a=1\nmore\nlast"),
        ("OK - fine | a=1\nmore\nlast", 22, "OK - fine | a=1\nmore"),
        ("OK - fine | a=1\nmore", 15, "OK - fine | a=1"),
        ("OK - fine | a=1\nmore", 14, "OK - fine"),
        ("OK - fine | a=1", 8, "OK - ..."),
        ("µµµµ", 6, "µ..."),
    ],
)
def test_what_is_left_out_where_room_is_short(text: str, most: int, left: str) -> None:
    assert fitted(text, most).decode() == left


@given(st.binary(max_size=1200))
def test_no_bytes_are_an_error_of_another_kind(data: bytes) -> None:
    refused_or_read(data)


def test_mutations_of_queries() -> None:
    """Bytes changed, added, left out; half of them with a checksum that is right again."""
    draw = random.Random(SEED)
    seeds = [query(v, t) for v in (2, 3, 4) for t in (b"check_everup", b"web!x!y", b"z" * 255)]
    read = 0
    for _ in range(ROUNDS):
        packet = bytearray(draw.choice(seeds))
        for _ in range(draw.randint(0, 3)):
            place = draw.randrange(min(len(packet), 40))
            match draw.randrange(3):
                case 0:
                    packet[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, 0x21, draw.randrange(256)))
                case 1:
                    del packet[place : place + draw.randint(1, 4)]
                case _:
                    packet[place:place] = draw.randbytes(draw.randint(1, 4))
            if len(packet) < HEAD_BYTES:
                break
        whole = bytes(packet)
        read += refused_or_read(signed(whole) if draw.random() < 0.5 and len(whole) > 8 else whole)
    assert ROUNDS // 20 < read < ROUNDS


def refused_or_read(data: bytes) -> bool:
    try:
        found = parse(data)
    except PacketError:
        return False
    assert found.command.isascii()
    assert found.command.isprintable()
    assert " " not in found.command
    return True


BASE = '[service.web]\ncommand = ["web"]\n[nagios.nrpe]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('listen = "0.0.0.0:5666"', "plaintext = true"),
        ('listen = ":5666"', "plaintext = true"),
        ('listen = "[::]:5666"', "plaintext = true"),
        ('listen = "192.0.2.1:5666"\nplaintext = true', "allowed names none"),
        ('listen = "nagios:5666"', "no IP address"),
        ('listen = "unix:/run/nrpe"', "expected an IP address and a port"),
        ('allowed = ["192.0.2.1/24"]', "host bits"),
        ('allowed = ["nagios"]', "names are not looked up"),
        ('tls_cert_file = "a.pem"', "go together"),
        ('tls_client_ca_file = "a.pem"', "needs tls_cert_file"),
    ],
)
def test_tables_that_are_refused(text: str, says: str) -> None:
    [problem] = config.check(BASE + text, path="everup.toml", directory="/srv").problems
    assert says in problem.message
    assert problem.key.startswith("nagios.nrpe")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'listen = "[::1]:5666"',
        'listen = "0.0.0.0:5666"\nallowed = ["192.0.2.0/24"]\nplaintext = true',
        'listen = ":5666"\nallowed = ["192.0.2.7"]\ntls_cert_file = "a"\ntls_key_file = "b"',
    ],
)
def test_tables_that_are_taken(text: str) -> None:
    assert config.check(BASE + text, path="everup.toml", directory="/srv").problems == ()
