"""What plugins say, read as Nagios reads it."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations.nagios.plugin import (
    MOST_BYTES,
    MOST_VALUES,
    Range,
    State,
    judge,
    parse,
)

SEEN = [
    json.loads(line)
    for line in Path(__file__).with_name("plugin_output.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("seen", SEEN, ids=[seen["source"] for seen in SEEN])
def test_outputs_of_real_plugins(seen: dict[str, Any]) -> None:
    """monitoring-plugins 2.3.3, nagios-plugins-contrib and others, as they were run."""
    got = asdict(parse(seen["output"]))
    got["perf"] = list(got["perf"])
    assert got == {key: seen[key] for key in ("text", "long", "perf", "not_understood")}


@pytest.mark.parametrize(
    ("data", "value", "unit"),
    [
        ("x=1.5e-05s", 1.5e-05, "s"),
        ("x=-3", -3.0, ""),
        ("x=.5%", 0.5, "%"),
        ("x=12kB/s", 12.0, "kB/s"),
        ("x=7µs", 7.0, "µs"),
        ("x=U", None, ""),
        ("a=b=4", 4.0, ""),
    ],
)
def test_values(data: str, value: float | None, unit: str) -> None:
    [found] = parse(f"OK|{data}").perf
    assert (found.value, found.unit) == (value, unit)


@pytest.mark.parametrize("data", ["x=1.2.3", "x=", "x=up", "=1", "x=10:20", "x=nan", "x=1e999"])
def test_what_is_no_value(data: str) -> None:
    output = parse(f"OK|{data}")
    assert (output.perf, output.not_understood) == ((), 1)


def test_long_text_and_its_performance_data() -> None:
    output = parse(b"OK - fine | a=1\nline 1\nline 2 | b=2\nc=3 d=4\n")
    assert (output.text, output.long) == ("OK - fine", "line 1\nline 2")
    assert [value.label for value in output.perf] == ["a", "b", "c", "d"]


def test_the_text_ends_at_a_zero_byte_and_bad_bytes_do_no_harm() -> None:
    assert parse(b"OK \xff\0 more | a=1").text == "OK �"


def test_bounds() -> None:
    output = parse("OK|" + " ".join(f"v{n}=1" for n in range(5000)) + "x" * MOST_BYTES)
    assert len(output.perf) == MOST_VALUES
    assert len(parse("x" * (1 << 20)).text) == MOST_BYTES


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("10", [0, 10, 5], [-0.1, 10.1]),
        ("10:", [10, 1e9], [9.9]),
        ("~:10", [-1e9, 10], [10.1]),
        ("10:20", [10, 20], [9, 21]),
        ("@10:20", [9, 21], [10, 20]),
        (":9", [0, 9], [-1, 10]),
        ("~:", [-1e9, 1e9], []),
        ("1:~", [1, 1e9], [0]),
        ("0,5:1,5", [1], [0.4, 1.6]),
    ],
)
def test_ranges(text: str, inside: list[float], outside: list[float]) -> None:
    threshold = Range.parse(text)
    assert [value for value in inside if threshold.alerts(value)] == []
    assert [value for value in outside if not threshold.alerts(value)] == []


@pytest.mark.parametrize("text", ["", "a", "20:10", "1:2:3", "@", "~", "nan"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="valid"):
        Range.parse(text)


@pytest.mark.parametrize(
    ("status", "out", "err", "state", "said"),
    [
        (0, b"fine", b"", State.OK, ""),
        (1, b"slow", b"", State.WARNING, ""),
        (2, b"down", b"", State.CRITICAL, ""),
        (3, b"what", b"", State.UNKNOWN, ""),
        (4, b"x", b"", State.UNKNOWN, "4"),
        (255, b"x", b"", State.UNKNOWN, "255"),
        (126, b"", b"", State.UNKNOWN, "not be executed"),
        (127, b"", b"libx.so: cannot open", State.UNKNOWN, "not found"),
        (-9, b"", b"", State.UNKNOWN, "signal 9"),
        (2, b"", b"usage: check_x [-h]\ncheck_x: error: bad -w", State.UNKNOWN, "error of the"),
        (2, b"", b"Can't locate Foo.pm in @INC at ./check_y line 3.", State.UNKNOWN, "error of"),
        (2, b"CRITICAL", b"usage: a word", State.CRITICAL, ""),
        (2, b"", b"", State.CRITICAL, ""),
    ],
)
def test_exit_statuses(status: int, out: bytes, err: bytes, state: State, said: str) -> None:
    verdict = judge(status, out, err)
    assert verdict.state is state
    assert said in verdict.said
    assert bool(said) == bool(verdict.said)
    assert verdict.serves is {0: True, 1: True, 2: False, 3: None}[state]


def test_what_stderr_says_is_told_where_stdout_says_nothing() -> None:
    assert "no route" in judge(2, b"\n", b"first\nno route to host\n").text


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    output = parse(data)
    assert "\n" not in output.text
    assert all(value.value is None or math.isfinite(value.value) for value in output.perf)
    judge(2, data, data)


@given(st.text(alphabet="'=;,| ab1.%\n", max_size=200))
def test_any_performance_data_is_read(data: str) -> None:
    output = parse(f"OK|{data}")
    assert all(value.label for value in output.perf)
