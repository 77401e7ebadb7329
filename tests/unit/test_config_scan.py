"""The scanner against tomllib: every key path, at the line where it was written."""

import string
import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from everup.config._problem import Path, toml_string
from everup.config._scan import key_lines

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
NASTY = st.text("ab#[]{}=\",'\\. \t\u00e9", max_size=8)
BARE = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=5)


class Writer:
    """Writes TOML piece by piece and notes the line of each key on the way."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.parts: list[str] = []
        self.line = 1
        self.lines: dict[Path, int] = {}
        self.serial = 0

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.line += text.count("\n")

    def note(self, path: Path) -> None:
        self.lines.setdefault(path, self.line)

    def name(self) -> str:
        """A name not used before, so that no key is defined twice."""
        self.serial += 1
        return self.draw(BARE | TEXT | NASTY) + str(self.serial)

    def key(self, name: str) -> None:
        styles = [toml_string(name)]
        if all(char in string.ascii_letters + string.digits + "_-" for char in name):
            styles.append(name)
        if "'" not in name:
            styles.append(f"'{name}'")
        self.put(self.draw(st.sampled_from(styles)))

    def blank(self, newlines: bool) -> None:
        choices = ["", " ", "\t"]
        if newlines:
            choices += ["\n", ' # ]},= "\n  ', "\n\n", "#''' [x]\n"]
        self.put(self.draw(st.sampled_from(choices)))

    def value(self, path: Path, depth: int) -> None:
        kinds = ["scalar", "string"] + (["list", "table"] if depth < 4 else [])
        match self.draw(st.sampled_from(kinds)):
            case "scalar":
                scalars = ["1", "-2.5e3", "true", "inf", "1979-05-27 07:32:00", "0xff", "07:32:00"]
                self.put(self.draw(st.sampled_from(scalars)))
            case "string":
                self.string()
            case "list":
                self.array(path, depth)
            case "table":
                self.inline(path, depth)

    def string(self) -> None:
        text = self.draw(NASTY)
        plain = text.replace("'", "")
        styles = [
            toml_string(text),
            f"'{plain}'",
            '"""\n' + text.replace("\\", "\\\\").replace('"""', "") + 'x\n #[ \\\n  y""q"""',
            f"'''{plain}\n[a]\nb = 1 ''q'''",
            "''''a''''",
            '"""""two"""""',
            '""""""',
            "''",
        ]
        self.put(self.draw(st.sampled_from(styles)))

    def array(self, path: Path, depth: int) -> None:
        self.put("[")
        size = self.draw(st.integers(0, 3))
        for i in range(size):
            self.blank(newlines=True)
            self.note((*path, i))
            self.value((*path, i), depth + 1)
            self.blank(newlines=True)
            if i < size - 1 or self.draw(st.booleans()):
                self.put(",")
        self.blank(newlines=True)
        self.put("]")

    def inline(self, path: Path, depth: int) -> None:
        self.put("{")
        for i in range(self.draw(st.integers(0, 3))):
            if i:
                self.put(",")
            self.blank(newlines=False)
            self.pair(path, depth + 1)
        self.blank(newlines=False)
        self.put("}")

    def pair(self, path: Path, depth: int) -> None:
        for i in range(self.draw(st.integers(1, 3))):
            if i:
                self.blank(newlines=False)
                self.put(".")
                self.blank(newlines=False)
            name = self.name()
            path = (*path, name)
            self.note(path)
            self.key(name)
        self.blank(newlines=False)
        self.put("=")
        self.blank(newlines=False)
        self.value(path, depth)

    def body(self, path: Path) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.blank(newlines=True)
            self.pair(path, 0)
            self.put(self.draw(st.sampled_from(["\n", " # x = 1\n", "\r\n"])))

    def header(self, names: list[str], *, as_list: bool) -> None:
        self.put("[[" if as_list else "[")
        for i, name in enumerate(names):
            self.put("." if i else self.draw(st.sampled_from(["", " "])))
            self.key(name)
        self.put("]]\n" if as_list else "] # [c]\n")

    def document(self) -> None:
        self.body(())
        for _ in range(self.draw(st.integers(0, 3))):
            name, inner = self.name(), self.name()
            if self.draw(st.booleans()):
                self.note((name,))
                self.note((name, inner))
                self.header([name, inner], as_list=False)
                self.body((name, inner))
                if self.draw(st.booleans()):  # the parent's own header may come later
                    self.lines[name,] = self.line
                    self.header([name], as_list=False)
                    self.body((name,))
            else:
                for i in range(self.draw(st.integers(1, 3))):
                    self.note((name,))
                    self.note((name, i))
                    self.header([name], as_list=True)
                    self.body((name, i))
                    self.note((name, i, inner))
                    self.header([name, inner], as_list=False)
                    self.body((name, i, inner))


@st.composite
def documents(draw: Any) -> tuple[str, dict[Path, int]]:
    writer = Writer(draw)
    writer.document()
    return "".join(writer.parts), writer.lines


def paths(value: object, path: Path = ()) -> set[Path]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = {path} if path else set()
    return found.union(*(paths(item, (*path, key)) for key, item in items))


@settings(max_examples=300, deadline=None)
@given(documents())
def test_every_path_of_tomllib_is_found_at_its_line(document: tuple[str, dict[Path, int]]) -> None:
    text, expected = document
    found = key_lines(text)
    assert set(found) == paths(tomllib.loads(text))
    assert found == expected


def test_a_tables_own_header_is_its_line() -> None:
    lines = key_lines("[a.b]\nx = 1\n\n[a]\ny.z = 2\n")
    assert lines == {
        ("a",): 4,
        ("a", "b"): 1,
        ("a", "b", "x"): 2,
        ("a", "y"): 5,
        ("a", "y", "z"): 5,
    }


def test_escapes_in_keys() -> None:
    text = '"a\\u00e9\\"\\t\\\\" = 1\n"\\U0001F600".b = 2\n'
    assert set(key_lines(text)) == paths(tomllib.loads(text))


def test_deep_nesting_is_bounded_and_ends() -> None:
    text = "x = " + "[" * 90 + "]" * 90
    assert max(map(len, key_lines(text))) == 32
    text = ".".join("a" * 50) + " = 1\n[" + ".".join("b" * 50) + "]\nc = 1\n"
    assert max(map(len, key_lines(text))) == 32
