"""What is told of a channel that fails, and of one that works."""

from everup.integrations.delivery import Reached


def told(*seen: str) -> list[str]:
    """What each look leads to; "" is one that went well."""
    reached = Reached()
    out = []
    for why in seen:
        found = reached.failed(why) if why else reached.works()
        out.append(" ".join(f"{'+' if ok else '-'}{text.split()[-1]}" for ok, text in found))
    return out


def test_the_first_success_and_each_change_are_told() -> None:
    assert told("", "", "away", "away", "", "") == ["+again", "", "-away", "", "+again", ""]


def test_a_failure_at_the_beginning() -> None:
    assert told("away", "") == ["-away", "+again"]


def test_another_reason_is_told_once_it_stays() -> None:
    assert told("away", "locked", "locked", "locked", "") == [
        "-away",
        "",
        "+now -locked",
        "",
        "+again",
    ]


def test_reasons_that_alternate_are_not() -> None:
    assert told("away", *["slow", "away"] * 5) == ["-away", *[""] * 10]
