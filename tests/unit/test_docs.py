"""What the pages show works: configs are valid, commands, make targets and files exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from everup import config
from everup.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "README.zh-CN.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/**/*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_WORD = re.compile(r"[a-z]+$")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(text: str) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in _FENCE.finditer(text)]


def prose(text: str) -> str:
    return _FENCE.sub("", text)


CONFIGS = [
    pytest.param(body, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, (kind, body) in enumerate(fences(page.read_text(encoding="utf-8")), 1)
    if kind == "toml" and "[service." in body
]


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_that_is_shown_is_valid(text: str) -> None:
    report = config.check(text, path="everup.toml", directory="/srv")
    assert [str(problem) for problem in report.problems] == []


def shown_commands(text: str) -> list[str]:
    """`everup ...` in prose, and the lines of consoles and shell scripts."""
    found = re.findall(r"`(everup [^`]*)`", prose(text))
    for kind, body in fences(text):
        if kind == "console":
            lines = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
        elif kind == "sh":
            lines = body.splitlines()
        else:
            continue
        found += [part.strip() for line in lines for part in re.split(r"&&|\||;|#", line)]
    return [line for line in found if re.match(r"(\S*/)?everup(\s|$)", line)]


def complaint(line: str) -> str:
    """What is wrong with a command line; empty if nothing is."""
    words = shlex.split(line)[1:]
    context = click.Context(cli, info_name="everup")
    try:
        _, rest, _ = cli.make_parser(context).parse_args(words)
        if not rest:
            return ""
        command = cli.get_command(context, rest[0])
        if command is None:
            return f"no command {rest[0]}"
        below = click.Context(command, info_name=rest[0], parent=context)
        _, left, _ = command.make_parser(below).parse_args(rest[1:])
        if left and isinstance(command, click.Group):
            part = command.commands.get(left[0])
            if part is None:
                return f"{rest[0]} has no command {left[0]}"
            own = click.Context(part, info_name=left[0], parent=below)
            _, left, _ = part.make_parser(own).parse_args(left[1:])
        if left:
            return f"{rest[0]} takes no argument {left[0]}"
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    lines = shown_commands(page.read_text(encoding="utf-8"))
    assert [(line, why) for line in lines if (why := complaint(line))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert complaint("everup reinstall web")
    assert complaint("everup reload web")
    assert complaint("everup status --frobnicate")
    assert not complaint("everup -c FILE logs -f -n 20 web.1")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_is_shown_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    shown = re.findall(r"`make ([a-z]+)", text) + re.findall(r"^\$? ?make ([a-z]+)", text, re.M)
    assert {name for name in shown if _WORD.match(name)} <= targets


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_there(page: Path) -> None:
    for target, anchor in _LINK.findall(prose(page.read_text(encoding="utf-8"))):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{target}#{anchor}"


def test_tests_named_as_proof_exist() -> None:
    text = (ROOT / "docs" / "design" / "faults.md").read_text(encoding="utf-8")
    proofs = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert proofs
    for path, function in proofs:
        assert (ROOT / path).is_file(), path
        if function:
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), function


def test_the_chinese_page_is_in_step_with_the_english_one() -> None:
    english = (ROOT / "README.md").read_text(encoding="utf-8")
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    count = re.compile(r"^#+ ", re.MULTILINE)
    assert len(count.findall(prose(english))) == len(count.findall(prose(chinese)))
    assert [f for f in fences(english) if f[0]] == [f for f in fences(chinese) if f[0]]
