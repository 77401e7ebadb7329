"""The page of the mathematics: its examples run as printed, and no public function is left out."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import FunctionType

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "reliability.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
MODULES = (
    "rates",
    "repair",
    "availability",
    "growth",
    "lifetimes",
    "blocks",
    "repairable",
    "markov",
    "trees",
    "importance",
    "slo",
    "rejuvenation",
    "actions",
    "simulate",
    "account",
)


def public_functions(module: str) -> list[str]:
    """Those that it defines, or lists in ``__all__``."""
    found = import_module(f"everup.reliability.{module}")
    names = getattr(found, "__all__", None)
    return [
        name
        for name, value in inspect.getmembers(found, inspect.isfunction)
        if (name in names if names is not None else is_own(value, found.__name__))
    ]


def is_own(function: FunctionType, module: str) -> bool:
    return function.__module__ == module and not function.__name__.startswith("_")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_gives_what_it_shows(number: int) -> None:
    example = doctest.DocTestParser().get_doctest(
        EXAMPLES[number], {}, f"example {number + 1}", str(PAGE), None
    )
    assert example.examples, "no >>> in it"
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_on_the_page(module: str) -> None:
    names = public_functions(module)
    assert names
    assert [name for name in names if f"`{module}.{name}`" not in TEXT] == []


@pytest.mark.parametrize("module", MODULES)
def test_functions_that_are_named_exist(module: str) -> None:
    named = set(re.findall(rf"`{module}\.(\w+)`", TEXT))
    found = import_module(f"everup.reliability.{module}")
    assert {name for name in named if not hasattr(found, name)} == set()


def test_every_section_says_when_it_lies() -> None:
    sections = re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]
    assert len(sections) > 30
    assert [s.splitlines()[0] for s in sections if "**Lies when**" not in s] == []
    assert [s.splitlines()[0] for s in sections if "```python" not in s] == []
