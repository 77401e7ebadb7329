"""What Icinga's answers mean, and the objects in its language."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup import config
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.icinga import Outcome, body, objects, outcome, parameters
from everup.integrations.standing import Level


def test_a_request() -> None:
    result = Result("box", "a!b;c", Level.CRITICAL, "down;\nsee | log", 12.5, perf="a=1")
    assert parameters(result) == {"service": "box!a_b_c"}
    assert body(result, 90) == {
        "exit_status": 2,
        "plugin_output": "down: see / log",
        "performance_data": "a=1",
        "check_source": "box",
        "ttl": 90,
    }
    host = Result("box", "", Level.CRITICAL, "x", 1.0)
    assert (parameters(host), body(host, 1)["exit_status"]) == ({"host": "box"}, 1)


TAKEN = {"code": 200, "status": "Successfully processed check result for object 'box!web'."}
REFUSED = {"code": 400, "status": "Parameter 'plugin_output' is required"}


@pytest.mark.parametrize(
    ("status", "answer", "found"),
    [
        (200, {"results": [TAKEN]}, Outcome.TAKEN),
        (404, {"error": 404, "status": "No objects found."}, Outcome.UNKNOWN),
        (500, {"results": []}, Outcome.UNKNOWN),
        (400, {"results": [REFUSED]}, Outcome.REFUSED),
        (401, {"error": 401, "status": "Unauthorized."}, Outcome.AGAIN),
        (403, {"error": 403, "status": "Missing permission"}, Outcome.AGAIN),
        (500, {"error": 500, "status": "x"}, Outcome.AGAIN),
        (503, {"error": 503, "status": "Icinga is reloading."}, Outcome.AGAIN),
        # Of another kind of server.
        (404, None, Outcome.AGAIN),
        (404, {}, Outcome.AGAIN),
        (200, None, Outcome.AGAIN),
        (200, {"results": {"code": 200}}, Outcome.AGAIN),
        (200, {"results": [7]}, Outcome.AGAIN),
        (302, None, Outcome.AGAIN),
    ],
)
def test_answers_of_icinga_2_13(status: int, answer: object, found: Outcome) -> None:
    data = b"<html>" if answer is None else json.dumps(answer).encode()
    assert outcome(status, data)[0] is found


NAMES = st.sampled_from(["results", "code", "status", "error"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([200, 400, 404, 500]), JSON.map(json.dumps).map(str.encode) | st.binary())
def test_no_answer_is_an_error_of_ours(status: int, data: bytes) -> None:
    found, words = outcome(status, data)
    assert found in Outcome
    assert words
    assert "\n" not in words
    assert len(words) <= 200


def test_objects() -> None:
    found = objects("box", {"web": ["db"], "db": []}, address="127.0.0.1", beat_s=30.0)
    assert re.findall(r'^object (\w+) "([^"]*)"', found, re.MULTILINE) == [
        ("Host", "box"),
        ("Service", "web"),
        ("Service", "db"),
        ("Service", "everup"),
        ("Dependency", "needs-db"),
    ]
    assert found.count("check_interval = 90s") == 3


def test_objects_of_names_that_would_end_a_string() -> None:
    found = objects('b"x', {'a" {}\nobject ApiUser "evil': []}, address='1" }', beat_s=2.0)
    assert found.count("object ") == 4
    assert "ApiUser" in found
    for line in found.splitlines():
        assert line.count('"') in (0, 2)
        assert "$" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('url = "http://icinga:5665"', "expected form"),
        ('url = "https://u:p@icinga:5665"', "expected form"),
        ('user = "a"', "missing"),
        ('fingerprint = "00"', "expected form"),
        ('server_name = "x"\nfingerprint = "' + "00" * 32 + '"', "would change nothing"),
    ],
)
def test_tables_that_are_refused(text: str, says: str) -> None:
    whole = {"url": '"https://icinga:5665"', "user": '"e"', "password_file": '"p"'}
    given = dict(line.split(" = ", 1) for line in text.splitlines())
    if "user" in given:
        del whole["password_file"]
    lines = [f"{key} = {value}" for key, value in (whole | given).items()]
    body = "\n".join(['[service.web]\ncommand = ["web"]\n[nagios.icinga]', *lines])
    [problem] = config.check(body, path="everup.toml", directory="/srv").problems
    assert says in problem.message
