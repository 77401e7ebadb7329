"""What holds for the tests of everup.tolerate."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """What is there by now stays: not to look at it makes each ``gc.collect()`` of a test many
    times as quick."""
    gc.collect()
    gc.freeze()
