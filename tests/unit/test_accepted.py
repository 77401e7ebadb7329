"""The config in force outlives damage of each of its files, unnoticed by no one."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everup.adapters import accepted
from everup.adapters.logs._ledger import Ledger, Move
from everup.adapters.place import Place

TEXT = '[service.web]\ncommand = ["serve", "--port", "8000"]\r\nreplicas = 2\n# ü\n'


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / ".everup").mkdir()
    place = Place.of(str(tmp_path / "everup.toml"), ".everup")
    accepted.write(place, TEXT)
    try:
        yield place
    finally:
        accepted.forget(place)


def flip(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def zero(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data))
    data[at : at + 8] = bytes(len(data[at : at + 8]))


def swap(data: bytearray, dice: random.Random) -> None:
    one, other = (dice.randrange(len(data)) for _ in range(2))
    data[one], data[other] = data[other], data[one]


DAMAGES = pytest.mark.parametrize("damage", [flip, cut, zero, swap])
Damage = Callable[[bytearray, random.Random], None]


@DAMAGES
@pytest.mark.parametrize("which", ["accepted", "sealed", "memory"])
def test_one_that_is_damaged_is_never_gone_by(place: Place, which: str, damage: Damage) -> None:
    paths = {"accepted": place.accepted, "sealed": place.sealed, "memory": accepted._memory(place)}
    dice = random.Random(f"{which} {damage.__name__}")
    path, whole = Path(paths[which]), Path(paths[which]).read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        damage(data, dice)
        path.write_bytes(data)
        if which == "memory" and bytes(data) != whole:
            with pytest.raises(OSError, match="damaged"):
                accepted.read_memory(place)
        assert accepted.read(place) == TEXT
        assert accepted.mend(place, TEXT) == (which != "memory" and bytes(data) != whole)
        assert path.read_bytes() == whole


def test_what_is_gone_is_made_again(place: Place) -> None:
    for path in (place.accepted, place.sealed):
        Path(path).unlink()
        assert accepted.read(place) == TEXT
        assert accepted.mend(place, TEXT)
    for path in (place.accepted, place.sealed):
        Path(path).unlink()
    with pytest.raises(FileNotFoundError):
        accepted.read(place)
    assert accepted.read_memory(place) == TEXT


def test_where_the_plain_one_cannot_be_written_the_one_before_stays(place: Place) -> None:
    Path(f"{place.accepted}.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        accepted.write(place, "other")
    assert accepted.read(place) == TEXT


def test_where_there_is_no_room_to_seal_it_nothing_older_is_gone_by(place: Place) -> None:
    Path(f"{place.sealed}.new").mkdir()
    accepted.write(place, "other")
    assert accepted.read(place) == "other"


def test_a_text_that_waited_is_the_accepted_one(place: Place) -> None:
    Path(place.next).write_bytes(b"next\r\n")
    accepted.commit(place)
    assert accepted.read(place) == accepted.read_memory(place) == "next\r\n"
    assert not accepted.mend(place, "next\r\n")
    assert not Path(place.next).exists()


@DAMAGES
def test_a_damaged_ledger_stops_no_log(tmp_path: Path, damage: Damage) -> None:
    path, log = tmp_path / ".ledger", tmp_path / "web.1.log"
    log.write_bytes(b"line\n")
    ledger = Ledger(path, tmp_path)
    ledger.open()
    ledger.own("web.1", "stdout", 77)
    ledger.begin(Move(b"77", 99, b"words\n", 77), 6)
    ledger.close()
    whole = path.read_bytes()
    told = [at for at, byte in enumerate(whole) if byte]
    dice = random.Random(damage.__name__)
    for _ in range(100):
        data = bytearray(whole)
        at = dice.choice(told)  # most of it is empty
        part = data[at : at + 64]
        damage(part, dice)
        data[at : at + 64] = part
        path.write_bytes(data)
        again = Ledger(path, tmp_path)
        again.open()
        assert again.due(b"77") in (0, 6)
        assert again.owner("web.1", "stdout") in (None, 77)
        again.close()
    assert log.read_bytes() == b"line\n"
