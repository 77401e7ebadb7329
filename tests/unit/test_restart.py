"""The restart engine: backoff, jitter, intensity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.model.instance import ExitCause, ExitKind, Slot
from everup.model.record import Instance
from everup.model.spec import Intensity, Restart, Service
from everup.supervise.restart import Next, after_exit, backoff_s, is_failure

CRASH = ExitCause(ExitKind.CODE, 1)


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4), (11, 30.0), (10_000, 30.0)]
)
def test_doubles_up_to_the_cap(attempt: int, seconds: float) -> None:
    assert backoff_s(Restart(jitter="none"), attempt, 0.9) == pytest.approx(seconds)


@given(st.integers(2, 10**6), st.floats(0, 0.999999), st.sampled_from(["full", "equal", "none"]))
def test_jitter_stays_in_its_range(attempt: int, u: float, jitter: str) -> None:
    restart = Restart(jitter=jitter)  # type: ignore[arg-type]
    whole = backoff_s(Restart(jitter="none"), attempt, u)
    low = {"full": 0.0, "equal": whole / 2, "none": whole}[jitter]
    assert low <= backoff_s(restart, attempt, u) <= whole <= restart.max_delay


@pytest.mark.parametrize(
    ("cause", "failure"),
    [
        (ExitCause(ExitKind.CODE, 0), False),
        (ExitCause(ExitKind.CODE, 3), False),
        (ExitCause(ExitKind.CODE, 1), True),
        (ExitCause(ExitKind.SIGNAL, 15), True),
        (ExitCause(ExitKind.OOM, 9), True),
        (ExitCause(ExitKind.LOST), True),
        (ExitCause(ExitKind.CODE, 0, killed_for="liveness"), True),
    ],
)
def test_what_counts_as_failure(cause: ExitCause, failure: bool) -> None:
    assert is_failure(cause, Restart(success_exit=(0, 3))) is failure


@given(
    st.lists(st.floats(0.01, 20.0), min_size=1, max_size=60),
    st.integers(1, 6),
    st.floats(1.0, 30.0),
    st.floats(0, 0.999),
)
def test_intensity_is_held_whatever_the_rhythm(
    gaps: list[float], limit: int, period: float, u: float
) -> None:
    """In no window of ``period`` are there more quick restarts than ``limit``."""
    restart = Restart(intensity=Intensity(limit, period), reset_after=0.0, park_interval=60.0)
    service = Service("web", ("serve",), restart=restart)
    instance, now, quick = Instance(Slot("web", 1), want=True, up_at=0.0), 0.0, []
    for gap in gaps:
        now += gap
        instance, decision = after_exit(service, instance, CRASH, u, now)
        assert decision.next in (Next.AGAIN, Next.BACKOFF, Next.PARK)
        if decision.next is Next.PARK:
            now += decision.delay_s
        else:
            quick.append(now)
            assert len([t for t in quick if now - t < period]) <= limit
        assert len(instance.crashes) <= limit + 1  # bounded


def test_parked_is_parked_again_by_one_more_crash() -> None:
    service = Service("web", ("serve",))
    parked = Instance(Slot("web", 1), want=True, parked=True, up_at=100.0)
    again, decision = after_exit(service, parked, CRASH, 0.5, 101.0)
    assert decision.next is Next.PARK
    assert again.parked
    freed, decision = after_exit(service, parked, CRASH, 0.5, 111.0)
    assert decision.next is Next.AGAIN
    assert not freed.parked
