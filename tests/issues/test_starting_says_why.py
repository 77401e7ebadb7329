"""`everup status` had "no reason known" while a pre_start hook ran, and for whatever else an
instance was waiting for."""

import pytest
from _everup import SLEEP, Everup, sh


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"hooks": {"pre_start": SLEEP}}, "web.1: its pre_start hook runs (sleep)"),
        ({"notify": True}, "web.1: it has not sent READY=1 yet"),
        (
            {"probe": {"startup": {"exec": SLEEP, "timeout": "1h"}}},
            "web.1: its startup probe has not succeeded yet",
        ),
        (
            {"probe": {"readiness": {"exec": SLEEP, "timeout": "1h"}}},
            "web.1: its readiness probe has not succeeded yet",
        ),
    ],
)  # fmt: skip
def test_while_it_starts(everup: Everup, more: dict[str, object], words: str) -> None:
    everup.write({"web": {"command": SLEEP, **more}})
    everup.cli("up", "-d", "--timeout", "0", expect=None)
    everup.wait_for(lambda: words in everup.cli("status", expect=None).out, words)


UNTIL_GO = sh("until test -e go; do sleep 0.05; done")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"command": sh("trap '' TERM; until test -e go; do :; done")}, "it was sent SIGTERM"),
        ({"hooks": {"pre_stop": UNTIL_GO}}, "its pre_stop hook runs (sh)"),
        ({"hooks": {"post_stop": UNTIL_GO}}, "its post_stop hook runs (sh)"),
    ],
)
def test_while_it_stops(everup: Everup, more: dict[str, object], words: str) -> None:
    """What is asked for has a reason of its own; what is under way is told by the API."""
    everup.up({"web": {"command": SLEEP, "stop_timeout": "1h", **more}})
    everup.cli("stop", "web", "--timeout", "0", expect=None)
    try:
        everup.wait_for(lambda: everup.instance("web.1")["doing"] == words, words)
    finally:
        (everup.directory / "go").touch()
