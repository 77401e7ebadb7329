"""Whatever the text, the config room answers with a spec or with problems."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.config import ConfigError, check, explain, load
from everup.config._problem import key_name, toml_string
from everup.config.init import Surroundings, from_procfile, from_supervisord
from everup.model import spec as model

KEYS = sorted(
    {
        field
        for table in vars(model).values()
        if isinstance(table, type) and hasattr(table, "__pydantic_fields__")
        for field in table.__pydantic_fields__
    }
    | {"defaults", "startup", "main", "web", "db"}
)
STRINGS = [
    *("1s", "500ms", "512M", "9" * 400 + "s", "9" * 400 + "T", "1" * 30 + "w", "0", "listen", "/x"),
    *("127.0.0.1:80", ":80", "unix:/x", "[::1]:80", "http://[", "http://x:99999/", "{port}", "{"),
    *("web", "db", "oneshot", "always", "SIGTERM", "(", "a{99999999999}", "200-100", "027", "-x"),
    *("[" * 5000, "", " ", "\u0130", "\x7f"),
]


def toml(value: Any) -> str:
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key_name(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, bool | int):
        return json.dumps(value)
    return str(value)


scalars = (
    st.sampled_from(STRINGS)
    | st.integers(-2, 70000)
    | st.sampled_from([2**63, -(2**64), 10**400])
    | st.booleans()
    | st.floats()
    | st.dates()
    | st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=5)
)
keys = st.sampled_from(KEYS) | st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
services = st.dictionaries(keys, values, max_size=6).map(lambda table: {"command": ["x"], **table})
configs = st.fixed_dictionaries(
    {},
    optional={
        "service": st.dictionaries(st.sampled_from(["web", "db", "1"]), services) | values,
        "group": st.dictionaries(st.sampled_from(["web", "g"]), values) | values,
        "defaults": services | values,
        "everup": st.dictionaries(keys, values, max_size=4) | values,
        "other": values,
    },
)


def attempt(text: str) -> None:
    report = check(text, path="e.toml", directory="/srv")
    assert (report.spec is None) == bool(report.problems)
    lines = [problem.line for problem in report.problems]
    assert lines == sorted(lines)
    for problem in (*report.problems, *report.warnings):
        assert "Input should" not in str(problem)
        assert "pydantic" not in str(problem)
        assert "\n" not in str(problem)
    if report.spec is None:
        with pytest.raises(ConfigError) as caught:
            load(text, path="e.toml", directory="/srv")
        assert tuple(caught.value.problems) == report.problems
    else:
        tomllib.loads(explain(report.spec))


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text("[]{}=\"'.,#\n ab1"))
def test_any_text(text: str) -> None:
    attempt(text)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(configs)
def test_any_document(config: dict[str, Any]) -> None:
    text = "".join(f"{key} = {toml(value)}\n" for key, value in config.items())
    tomllib.loads(text)
    attempt(text)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_value_for_any_key(data: st.DataObject) -> None:
    """One key at a time, so that the value meets the checks behind the model's."""
    tables = [
        *("", "probe.liveness.", "restart.", "restart.intensity.", "limits.", "hooks.", "log."),
        *("environment.", "watchdog.", "listen.main.", "probe."),
    ]
    key = data.draw(st.sampled_from(tables)) + key_name(data.draw(st.sampled_from(KEYS)))
    value = toml(data.draw(values))
    attempt(f'[service.db]\ncommand = ["x"]\n[service.web]\n{key} = {value}\n')


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "{a=" * 5_000,
        "service.web." + ".".join("a" * 400) + " = 1",
        "service.web.command = " + "[" * 60 + "]" * 60,
        "a = 0x" + "f" * 9000,
        "a = " + "1" * 9000,
        "a = '\ud800'",
        "\ufeff[everup]\n",
        "#" * (1 << 21),
        "[service.web]\ncommand = ['a\\u0000']\n".replace("'", '"'),
    ],
    ids=lambda text: text[:20].encode("ascii", "replace").decode(),
)
def test_extremes(text: str) -> None:
    attempt(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["web", "w", "release", "2x", "-", "?"]), st.text(max_size=12))
        | st.tuples(
            st.sampled_from(["web", "api"]),
            st.lists(
                st.sampled_from(
                    [
                        "A=b",
                        "$PORT",
                        "'$PORT'",
                        "cmd",
                        "|",
                        '"',
                        "'",
                        "{x}",
                        "exec",
                        "cd",
                        "\\",
                        '""',
                    ]
                )
            ).map(" ".join),
        ),
        max_size=5,
    )
)
def test_any_procfile_converts_to_a_valid_config(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{name}: {line}" for name, line in lines)
    try:
        drafted = from_procfile(text, "x\ny")
    except ConfigError:  # no line of it names a process
        return
    assert check(drafted.text, path="e", directory="/srv").problems == ()


OPTIONS = [
    "command",
    "socket",
    "numprocs",
    "numprocs_start",
    "environment",
    "autorestart",
    "startsecs",
]
OPTIONS += ["stopsignal", "umask", "exitcodes", "directory", "user", "process_name", "priority"]
OPTIONS += ["stdout_logfile_maxbytes", "stdout_logfile_backups", "autostart", "stopwaitsecs"]
PIECES = ["%(ENV_X)s", "80%(process_num)02d", "%(process_num)d", "%(x)s", "%", "{", "}", "'", '"']
PIECES += [
    "a",
    "=",
    ",",
    " ",
    "1",
    "0",
    "true",
    "5MB",
    "%(here)s",
    "%(process_num)x",
    "\x01x\x02",
    "%(ENV_Y)s",
    "unix:///",
]


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "program:web",
                "program:a.b",
                "fcgi-program:f",
                "supervisord",
                "group:g",
                "x",
                "program:",
            ]
        ),
        st.dictionaries(st.sampled_from([*OPTIONS, "programs"]), st.lists(st.sampled_from(PIECES))),
    )
)
def test_any_supervisord_conf_converts_to_a_valid_config(
    sections: dict[str, dict[str, list[str]]],
) -> None:
    text = ""
    for name, options in sections.items():
        text += f"[{name}]\n" + "".join(f"{k} = {''.join(v)}\n" for k, v in options.items())
    try:
        drafted = from_supervisord(text, Surroundings({"X": "x{y}"}))
    except ConfigError:  # no program in it
        return
    assert check(drafted.text, path="e", directory="/srv").problems == ()


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_text_as_supervisord_conf(text: str) -> None:
    try:
        converted = from_supervisord(text)
    except ConfigError:
        return
    assert check(converted.text, path="e", directory="/srv").problems == ()
