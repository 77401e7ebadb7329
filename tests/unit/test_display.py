"""Nothing that others write is obeyed by the terminal that shows it."""

import re
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import everup
from everup.cli import screen
from everup.model.display import shown, shown_line, toml_escaped

CLI = Path(everup.__file__).parent / "cli"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ümläut, 中文　字, नमस्ते\u200d, emoji \U0001f600", None),
        ("tab\there", None),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m c1 \x85 del\x7f", r"\x9b31m c1 \x85 del\x7f"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\u202eevil\u2066\u200f\u061c", r"\u202eevil\u2066\u200f\u061c"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("zero\u200bwidth\ufeff \U000e0041", r"zero\u200bwidth\ufeff \U000e0041"),
        ("\udcff\ud800", r"\xff\ud800"),
    ],
)
def test_what_is_escaped(text: str, expected: str | None) -> None:
    assert shown(text) == (text if expected is None else expected)
    assert shown(shown(text)) == shown(text)


def test_ends_of_lines() -> None:
    assert shown("a\nb") == "a\nb"
    assert shown_line("a\nb") == r"a\nb"


@given(st.text())
def test_nothing_harmful_is_left(text: str) -> None:
    for character in shown_line(text):
        category = unicodedata.category(character)
        assert character == "\t" or category not in ("Cc", "Cs", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )
    assert re.sub(r"\\(x..|u....|U........|n|r)", "", shown(text)).count("\x1b") == 0


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_toml_reads_it_back(text: str) -> None:
    whole = text.replace("\\", "").replace('"', "")
    assert tomllib.loads(f'a = "{toml_escaped(whole)}"')["a"] == whole


def test_colours_are_everups_own(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[8mhidden"
    screen.echo(f"{screen.style('red' + evil, fg='red')} {evil}")
    # captured, so that click takes the colours away: of the text nothing is lost
    assert capsys.readouterr().out == "red\\x1b[8mhidden \\x1b[8mhidden\n"
    screen.overwrite(evil + "\n")
    assert capsys.readouterr().err == "\r\x1b[K\\x1b[8mhidden\\n"


def test_colours_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(screen.click, "echo", lambda text, err: printed.append(text))
    screen.echo(screen.style("ready", fg="green") + "\x1b[2J")
    assert printed == ["\x1b[32mready\x1b[0m\\x1b[2J"]


def test_every_command_prints_that_way() -> None:
    for path in CLI.glob("*.py"):
        if path.name != "screen.py":
            found = re.findall(r"click\.(?:echo|secho|style)|\bprint\(|std(?:out|err)\.write",
                               path.read_text("utf-8"))  # fmt: skip
            assert found == [], path.name
