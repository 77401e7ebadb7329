"""Quick copies of frozen dataclasses are what the standard library's are."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Probe

FIELDS = [field.name for field in dataclasses.fields(Instance)]
CHANGES = st.dictionaries(st.sampled_from(FIELDS), st.integers())


@given(CHANGES, CHANGES)
def test_a_copy_is_what_the_standard_library_makes(
    first: dict[str, Any], then: dict[str, Any]
) -> None:
    record = Instance(Slot("web", 1), facts={"start": 7})
    quick, slow = replace(record, **first), dataclasses.replace(record, **first)
    assert (quick, hash(quick.slot)) == (slow, hash(slow.slot))
    assert replace(quick, **then) == dataclasses.replace(slow, **then)
    assert record == Instance(Slot("web", 1), facts={"start": 7})


def test_a_copy_is_frozen_too() -> None:
    copy = replace(ExitCause(ExitKind.CODE, 1), value=2)
    assert copy == ExitCause(ExitKind.CODE, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.value = 3  # type: ignore[misc]


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Instance has no field 'stat'"):
        replace(Instance(Slot("web", 1)), stat="ready")  # type: ignore[call-arg]


@dataclass(frozen=True)
class Positive:
    number: int = 1
    unit: str = "s"

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(self.number)


def test_what_a_class_checks_when_it_is_made_is_checked_in_copies() -> None:
    assert replace(Positive(), number=3) == Positive(3)
    with pytest.raises(ValueError, match="-1"):
        replace(Positive(), number=-1)
    with pytest.raises(ValueError, match="success_threshold"):
        replace(Probe(tcp="listen"), success_threshold="many")  # type: ignore[arg-type]
