"""The generated reference pages are what the code says today. Mend with: make docs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from openapi_spec_validator import validate

from everup.api.openapi import openapi
from everup.model.journal import Kind

ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _load()


@pytest.mark.parametrize("name", list(reference.pages()))
def test_the_page_is_up_to_date(name: str) -> None:
    assert (reference.REFERENCE / name).read_text(encoding="utf-8") == reference.pages()[name]


def test_every_kind_of_event_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z_.]+)` \| \S", reference.events(), re.MULTILINE)
    assert {kind.value for kind in Kind} <= set(explained)


def test_the_openapi_description_is_valid() -> None:
    validate(openapi())
