"""The pages of docs/tolerate say what the code does: their examples run, and their tables name
exactly the options, defaults and events that there are."""

import ast
import asyncio
import contextvars
import inspect
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import everup.tolerate
from everup.tolerate import TableError, _base, _clock, pipelines, sinks
from everup.tolerate._clock import SYSTEM
from everup.tolerate.table import POLICIES as IN_TABLES
from everup.tolerate.testing import FakeClock

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "tolerate"
PAGES = sorted(DOCS.glob("*.md"))
RESULTS = {"amplification", "hedging", "jitter", "retry-storm"}
"""Pages about simulations: tested with those."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")

DOCUMENTED = {
    "retry": [
        *["Retry", "constant", "exponential", "full", "equal", "decorrelated", "linear"],
        *["steps", "added"],
    ],
    "budget": ["RetryBudget"],
    "breaker": ["Breaker", "Consecutive", "CountWindow", "TimeWindow", "Growing"],
    "timeout": ["Timeout"],
    "deadline": ["Deadline"],
    "bulkhead": ["Bulkhead"],
    "limit": ["Limit", "Gradient2", "Vegas", "AIMD"],
    "rate-limit": ["RateLimit"],
    "shed": ["Shed"],
    "hedge": ["Hedge"],
    "fallback": ["Fallback"],
    "vote": ["Vote"],
    "chaos": ["Chaos"],
    "meter": ["Meter"],
    "keyed": ["Keyed"],
    "pipeline": ["Pipeline"],
    "sinks": ["LogSink", "PrometheusSink", "OtelSink", "EverupSink"],
    "table": ["pipelines"],
    "testing": ["FakeClock", "Recorder"],
    "README": ["Judge", "Clock"],
}
MODULES = {
    "Retry": ["retry", "_attempts"],
    "Breaker": ["breaker"],
    "Timeout": ["timeout", "_threaded"],
    "Deadline": ["deadline"],
    "Bulkhead": ["bulkhead"],
    "Limit": ["limit"],
    "RateLimit": ["rate", "_waiting"],
    "Shed": ["shed"],
    "Hedge": ["hedge", "_race"],
    "Fallback": ["fallback"],
    "Vote": ["vote"],
    "Chaos": ["chaos"],
    "Keyed": ["keyed"],
}
"""Where a policy tells its events. Those that are missing here tell none."""


class Block(NamedTuple):
    line: int
    kind: str
    text: str


def read(page: str) -> str:
    return (DOCS / f"{page}.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, match.start()) + 2, match[1].strip(), match[2])
        for match in _FENCE.finditer(text)
    ]


def tables(text: str, what: str) -> dict[str, list[list[str]]]:
    """Rows of the tables headed "Option of `X`" or "Event of `X`", by X."""
    found: dict[str, list[list[str]]] = {}
    name = None
    for line in _FENCE.sub("", text).splitlines():
        if not line.startswith("|"):
            name = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if head := re.match(rf"{what} of `(\w+)`", cells[0]):
            name = head[1]
            assert name not in found, f"two tables for {name}"
            found[name] = []
        elif name is not None and set(cells[0]) - set("-: "):
            found[name].append(cells)
    return found


def thing(name: str) -> Any:
    for place in (everup.tolerate, sinks, everup.tolerate.backoff, everup.tolerate.testing):
        if name in vars(place) or name in getattr(place, "__all__", ()):
            return getattr(place, name)
    return getattr(everup.tolerate, name)


# -- the pages as a whole


def test_every_page_is_known() -> None:
    known = {*DOCUMENTED, *RESULTS, "composition", "choosing-numbers", "moving"}
    known |= {"grpc", "http", "serving"}
    assert {page.stem for page in PAGES} == known


def test_every_policy_has_a_page() -> None:
    documented = {name for names in DOCUMENTED.values() for name in names}
    for name in everup.tolerate.__all__:
        it = getattr(everup.tolerate, name)
        if inspect.isclass(it) and issubclass(it, _base.Policy) and it is not _base.Policy:
            assert name in documented
    assert set(sinks.__all__) <= documented


def test_the_index_leads_to_every_page() -> None:
    for page in PAGES:
        assert page.stem == "README" or f"]({page.name})" in read("README"), page.name


def test_every_public_name_is_on_a_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in everup.tolerate.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


# -- examples

RUNS = [pytest.param(page.stem, id=page.stem) for page in PAGES]


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Time that passes only where somebody waits, for examples that use the system's."""
    clock = FakeClock()
    for name in _clock.Clock.__slots__:
        monkeypatch.setattr(SYSTEM, name, getattr(clock, name))
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "monotonic", clock.now)
    monkeypatch.setattr(asyncio, "run", clock.run)
    return clock


def run(page: str) -> None:
    names: dict[str, Any] = {"__name__": f"docs.{page}"}
    for block in blocks(read(page)):
        if block.kind.split()[:1] != ["python"]:
            continue
        # Empty lines before it, so that a traceback names the line of the page.
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, str(DOCS / f"{page}.md"), "exec")
        if block.kind == "python":
            exec(code, names)


@pytest.mark.parametrize("page", RUNS)
def test_examples_run(page: str, virtual: FakeClock) -> None:
    contextvars.copy_context().run(run, page)


@pytest.mark.parametrize("page", [*DOCUMENTED, "composition", "choosing-numbers", "moving"])
def test_pages_have_examples_that_run(page: str) -> None:
    assert any(block.kind == "python" for block in blocks(read(page)))


@pytest.mark.parametrize("page", RUNS)
def test_code_is_marked_as_what_it_is(page: str) -> None:
    known = {"", "python", "python no-run", "toml", "sh", "console", "java", "text"}
    assert {block.kind for block in blocks(read(page))} <= known


@pytest.mark.parametrize("page", RUNS)
def test_tables_that_are_shown_are_valid(page: str) -> None:
    for block in blocks(read(page)):
        if block.kind == "toml" and "[[pipeline." in block.text:
            assert pipelines(block.text)


def test_the_policies_of_tables_are_those_of_the_code() -> None:
    assert f"one of {', '.join(IN_TABLES)}." in read("table").replace("\n", " ")


def test_a_table_with_a_mistake_is_found() -> None:
    with pytest.raises(TableError):
        pipelines('[[pipeline.db]]\npolicy = "retry"\natempts = 3\n')


# -- options


def parameters(name: str) -> dict[str, inspect.Parameter]:
    found = inspect.signature(thing(name)).parameters.values()
    star = inspect.Parameter.VAR_POSITIONAL
    return {f"*{one.name}" if one.kind is star else one.name: one for one in found}


def shown(default: Any) -> set[str]:
    """How a page may write a default."""
    if default is inspect.Parameter.empty:
        return {"needed"}
    if isinstance(default, type):
        return {f"`{default.__name__}`"}
    if isinstance(default, tuple):
        inside = [min(shown(one)).strip("`") for one in default]
        return {f"`({', '.join(inside)}{',' if len(inside) == 1 else ''})`"}
    if isinstance(default, str):
        return {f'`"{default}"`'}
    if callable(default):  # parts of a clock
        return {"the system's"}
    if default is None or isinstance(default, bool | int | float):
        return {f"`{default!r}`", f"`{default:g}`" if isinstance(default, float) else ""}
    return {"none"}


OPTIONS = [(page, name) for page, names in DOCUMENTED.items() for name in names]


@pytest.mark.parametrize(("page", "name"), OPTIONS)
def test_options_are_those_of_the_code(page: str, name: str) -> None:
    rows = tables(read(page), "Option")[name]
    options = parameters(name)
    assert [_CODE.findall(row[0])[0] for row in rows] == list(options)
    for row, (option, parameter) in zip(rows, options.items(), strict=True):
        if parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            assert row[2] in shown(parameter.default), f"default of {option}"


@pytest.mark.parametrize("page", RUNS)
def test_no_other_tables_of_options(page: str) -> None:
    assert set(tables(read(page), "Option")) == set(DOCUMENTED.get(page, ()))


# -- events


def told(name: str) -> dict[str, set[str] | None]:
    """Kinds of events and their details, from the source; None: those are not to be seen there."""
    found: dict[str, set[str] | None] = {}
    for module in MODULES.get(name, ()):
        source = (Path(_base.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "_tell":
                continue
            kind = node.args[0]
            assert isinstance(kind, ast.Constant)
            assert isinstance(kind.value, str)
            names = {one.arg for one in node.keywords}
            known = found.get(kind.value, set())
            if None in names or known is None:  # what stands behind ** is not to be seen
                found[kind.value] = None
            else:
                found[kind.value] = known | {name for name in names if name is not None}
    return found


POLICIES = [
    (page, name)
    for page, name in OPTIONS
    if inspect.isclass(thing(name)) and issubclass(thing(name), _base.Policy)
]


@pytest.mark.parametrize(("page", "name"), POLICIES)
def test_events_are_those_of_the_code(page: str, name: str) -> None:
    rows = {_CODE.findall(row[0])[0]: row for row in tables(read(page), "Event").get(name, [])}
    events = told(name)
    assert set(rows) == set(events)
    for kind, details in events.items():
        named = set(_CODE.findall(rows[kind][1]))
        if details is None:
            assert named
        else:
            assert named == details, kind


def test_what_is_told_is_found_in_the_source() -> None:
    assert told("Retry") == {
        "retry": {"attempt", "delay_s", "error"},
        "recovered": {"attempts", "elapsed_s"},
        "gave_up": {"attempts", "why", "elapsed_s", "error"},
    }
    assert told("Breaker")["opened"] is None
