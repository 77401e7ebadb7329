"""Why something that lives is not well."""

from collections.abc import Sequence

import pytest

from everup.rooms.locate.causes import Known
from everup.rooms.locate.living import SPAN_S, living
from everup.rooms.locate.output import Line

NOW = 1000.0


def known(**output: Sequence[str]) -> Known:
    def read(slot: str, begin: float, end: float) -> list[Line]:
        return [Line(NOW - 1.0, text) for text in output.get(slot.replace(".", "_"), ())]

    return Known([], read, {"db": ["127.0.0.1:5432"], "web": [":80"]}, {"web": {"db"}})


@pytest.mark.parametrize(
    ("lines", "kind", "path"),
    [
        (["OSError: [Errno 28] No space left on device: '/var/x'"] * 3, "disk_full", ("web",)),
        (["OSError: [Errno 24] Too many open files"] * 3, "descriptors", ("web",)),
        (
            ["ConnectionRefusedError: [Errno 111] connect to 127.0.0.1:5432: Connection refused"],
            "refused",
            ("web", "db"),
        ),
    ],
)
def test_what_it_writes_names_the_cause(lines: list[str], kind: str, path: tuple[str, ...]) -> None:
    answer = living("web", ["web.1", "web.2"], "writes errors", known(web_2=lines), NOW)
    assert answer is not None
    assert answer.cause is not None
    assert (answer.cause.kind, answer.path) == (kind, path)
    assert answer.sentence == f"web writes errors, because {answer.cause.says}"


def test_what_comes_most_often_is_the_cause() -> None:
    lines = ["OSError: [Errno 24] Too many open files"] + ["No space left on device"] * 4
    answer = living("web", ["web.1"], "writes errors", known(web_1=lines), NOW)
    assert answer is not None
    assert [cause.kind for cause in answer.causes] == ["disk_full", "descriptors"]


def test_nothing_known_is_no_cause() -> None:
    assert living("web", ["web.1"], "x", known(web_1=["ERROR we are sad"]), NOW) is None
    assert living("web", [], "x", known(), NOW) is None
    assert SPAN_S > 0
