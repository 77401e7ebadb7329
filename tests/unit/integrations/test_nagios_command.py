"""What is written for Nagios is one result, whatever is in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.integrations.nagios.command import (
    MOST_LINE_BYTES,
    Result,
    line,
    name,
    performance,
    spool_file,
)
from everup.integrations.nagios.objects import objects
from everup.integrations.standing import Level

LINE = re.compile(
    rb"\[\d+\] PROCESS_(?:SERVICE|HOST)_CHECK_RESULT(?:;[^;|\n]+){1,2};[0-3];[^;\n\r\0]*\n"
)


def result(text: str = "fine", **settings: str) -> Result:
    given = {"host": "box", "service": "web", "long": "", "perf": ""} | settings
    return Result(
        given["host"], given["service"], Level.OK, text, 12.5, given["long"], given["perf"]
    )


def test_a_line() -> None:
    found = line(result("slow; see\nlog | now", perf="a=1", long="one\ntwo"))
    fields = b"[12] PROCESS_SERVICE_CHECK_RESULT;box;web;0;"
    assert found == fields + rb"slow: see log / now|a=1\none\ntwo" + b"\n"


def test_the_host_is_up_or_down() -> None:
    assert line(result(service="")) == b"[12] PROCESS_HOST_CHECK_RESULT;box;0;fine\n"


@given(st.text(), st.text(), st.text(max_size=50), st.text(max_size=50), st.sampled_from(Level))
def test_any_text_and_name_make_one_line(
    text: str, long: str, host: str, service: str, level: Level
) -> None:
    text = text.encode("utf-8", "replace").decode()
    long = long.encode("utf-8", "replace").decode()
    found = line(Result(host, service, level, text, 1.0, long))
    assert LINE.fullmatch(found)
    assert len(found) <= MOST_LINE_BYTES


@given(st.integers(3000, 5000), st.sampled_from("xµ☃"))
def test_long_texts_are_cut_to_what_is_written_in_one_piece(size: int, letter: str) -> None:
    found = line(result(letter * size, perf="a=1", long="more"))
    assert len(found) <= MOST_LINE_BYTES
    found.decode()


def test_names_that_leave_no_room_are_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        line(result(host="h" * 5000))


def test_a_file_has_each_key_once() -> None:
    lines = spool_file(result("a\nhost_name=evil", service="a\nreturn_code=0")).split(b"\n")
    keys = [text.partition(b"=")[0] for text in lines if b"=" in text]
    assert len(keys) == len(set(keys))
    assert b"service_description=a_return_code_0" in lines


@pytest.mark.parametrize("text", ["a;b|c", "a\nb", "a'b", 'a"b', "a$USER1$b", "a,b", "a\0b"])
def test_names(text: str) -> None:
    assert re.fullmatch(r"[\w]+", name(text))


def test_performance_data() -> None:
    numbers = {"ready": 2.0, "memory_bytes": 1536.0, "a b'c": 0.5}
    assert performance(numbers) == "ready=2 memory_bytes=1536B 'a b''c'=0.5"


def test_objects_of_names_that_would_end_a_definition() -> None:
    services = {"web": ["db"], "a\n}\ndefine command {": []}
    found = objects("b;x", services, address="1.2.3.4\n}", beat_s=2.0)
    assert found.count("define command {\n") == 2
    assert found.count("{") == found.count("}")
    assert "dependent_service_description  web" in found
    assert "freshness_threshold     6\n" in found
