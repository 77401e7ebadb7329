"""Addresses, templates, signals, the explained config, and the generated pages."""

import json
import signal
import tomllib
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everup.config import (
    SIGNALS,
    Address,
    check,
    explain,
    json_schema,
    load,
    parse_address,
    reference,
    template,
)
from everup.config._fields import exact_duration, exact_size
from everup.config._secrets import redact
from everup.config._signals import signal_name
from everup.model.spec import Service, Spec
from everup.model.units import parse_duration, parse_size

DOCS = Path(__file__).parents[2] / "docs" / "reference"

FULL = """
[everup]
state_dir = "/var/lib/everup"
journal_retention = "400d"
starvation_psi = 33.5
[defaults]
log = { max_size = "1500K", files = 2 }
[service.web]
command = ["web", "--x={{}}", "{port}", "quote\\"\\u007f"]
listen = { http = "127.0.0.1:80", "a.b" = { address = "unix:/run/a.sock", mode = "0600" } }
port = 5000
replicas = 2
standby = 1
depends_on = "db"
environment = { DB = "x", "odd name" = "a\\nb" }
watchdog = "1.2345678s"
stop_signal = "INT"
umask = "027"
restart = { policy = "never", success_exit = [0, 3], delay = "1ms", max_delay = "1h1m1s" }
limits = { memory = 5000001, cpu = 0.5 }
hooks = { pre_start = ["a", "b"] }
probe.startup = { exec = ["true"] }
probe.readiness = { http = "/x?y", listener = "http", headers = { Accept = "*/*" } }
probe.liveness = { tcp = "listen", interval = "10ms" }
[service.db]
command = ["db"]
notify = true
autostart = false
[service.job]
command = ["job"]
type = "oneshot"
[group.g]
services = ["web", "db"]
strategy = "rest_for_one"
"""


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("inet", "127.0.0.1", 8080)),
        ("localhost:1", Address("inet", "127.0.0.1", 1)),
        ("[::1]:65535", Address("inet6", "::1", 65535)),
        ("[0:0::1]:80", Address("inet6", "::1", 80)),
        (":80", Address("inet", "", 80)),
        ("*:80", Address("inet", "", 80)),
        ("unix:/run/a b.sock", Address("unix", path="/run/a b.sock")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("127.0.0.1:0", "port 0"),
        ("127.0.0.1:65536", "1 to 65535"),
        ("127.0.0.1:99999999999999999999", "1 to 65535"),
        ("127.0.0.1", "expected"),
        ("8080", '":8080"'),
        ("::1:80", "brackets"),
        ("[1.2.3.4]:80", "no IPv6 address"),
        ("example.org:80", "no IP address"),
        ("1.2.3:80", "no IP address"),
        ("127.0.0.1:８０", "expected"),
        ("/run/x.sock", '"unix:/run/x.sock"'),
        ("unix:x", "starts with /"),
        ("unix:/run/", "path of a socket"),
        ("unix:/" + "é" * 54, "107 bytes"),
        ("", "expected"),
    ],
)
def test_no_addresses(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_address(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (":80", "127.0.0.1:80", True),
        (":80", "0.0.0.0:80", True),
        (":80", "[::1]:80", False),
        (":80", ":81", False),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert parse_address(one).overlaps(parse_address(other)) == expected
    assert parse_address(other).overlaps(parse_address(one)) == expected


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


def test_templates() -> None:
    text = "{service}-{replica}:{port} {{{port}}} {{x}}"
    assert template.expand(text, service="web", replica=2, port=80) == "web-2:80 {80} {x}"
    assert template.names(text) == {"service", "replica", "port"}
    with pytest.raises(template.TemplateError, match="needs the key port"):
        template.expand("{port}", service="web", replica=1, port=None)


@pytest.mark.parametrize("text", ["{", "}", "{x}", "{}", "a{port", "{{}", "{ port }", "${HOME}"])
def test_no_templates(text: str) -> None:
    with pytest.raises(template.TemplateError):
        template.expand(text, service="web", replica=1, port=1)


@given(st.text("{}ab") | st.text())
def test_an_escaped_text_expands_to_itself(text: str) -> None:
    escaped = template.escape(text)
    assert template.expand(escaped, service="web", replica=1, port=None) == text


def test_signals_are_those_of_linux() -> None:
    for name, number in SIGNALS.items():
        if not name.startswith("SIGRT") and hasattr(signal, name):
            assert getattr(signal, name) == number
    assert signal_name("RTMAX") == "SIGRTMIN+30"
    assert signal_name("SIGRTMAX-30") == "SIGRTMIN"
    assert signal_name("RTMAX-31") is None
    assert signal_name("usr1") == "SIGUSR1"
    assert signal_name("15") is None


@given(st.floats(0, 1e9))
def test_durations_are_written_exactly(seconds: float) -> None:
    assert abs(parse_duration(exact_duration(seconds)) - seconds) < 1e-18


@given(st.integers(0, 2**62))
def test_sizes_are_written_exactly(size: int) -> None:
    if size < 2**53:
        assert parse_size(exact_size(size)) == size


def test_explained_config_reads_back_the_same() -> None:
    spec = load(FULL, path="e", directory="/srv")
    text = explain(spec, values=True)
    assert load(text, path="e", directory="/elsewhere") == spec
    assert 'start_timeout = "1m30s"  # default' in text
    assert 'max_size = "1500K"\n' in text or 'max_size = "1536000B"\n' in text
    assert "replicas = 2\n" in text
    assert "# user: not set  # default" in text


def test_explained_config_masks_secrets() -> None:
    text = explain(
        load(
            """
            [service.web]
            command = ["x"]
            port = 80
            environment = { DB_PASSWORD = "hunter2", Api_Token = "hunter2", KEYS = "hunter2",
                            A = "see", URL = "postgres://me:hunter2@db/x" }
            probe.liveness = { http = "/", headers = { Authorization = "hunter2" } }
            """.replace(",\n", ","),
            path="e",
            directory="/srv",
        )
    )
    assert "hunter2" not in text
    for name in ("DB_PASSWORD", "A", "URL", "Authorization"):  # a name need not say what it is
        assert f'{name} = "********"' in text
    tomllib.loads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://me:hunter2@db/x", "postgres://me:********@db/x"),
        ("postgres://me:hunter2@hunter2/hunter2@db/x", "postgres://me:********@db/x"),
        ("redis://:hunter2@db", "redis://:********@db"),
        ("https://hunter2@git.example/x", "https://********@git.example/x"),
        ("http://127.0.0.1:8080/x?a=b@c", "http://127.0.0.1:8080/x?a=b@c"),
        ("run --password=hunter2 --port=80", "run --password=******** --port=80"),
        ("run --db-password hunter2", "run --db-password ********"),
        ("DB_PASSWORD=hunter2 run", "DB_PASSWORD=******** run"),
        ("curl -H 'Authorization: Bearer hunter2'", "curl -H 'Authorization: ********'"),
        ("http://h/?api_key=hunter2&x=1", "http://h/?api_key=********&x=1"),
        ("a passwordless login", "a passwordless login"),
        ("--ssl-keyfile=/etc/tls.key", "--ssl-keyfile=/etc/tls.key"),
    ],
)
def test_secrets_in_text(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


def test_secrets_in_commands_and_problems() -> None:
    words = '"x", "--token", "hunter2", "postgres://me:hunter2@db"'
    table = f"[service.web]\nport = 80\ncommand = [{words}]\n"
    table += f"hooks.pre_start = [{words}]\nprobe.liveness.exec = [{words}]\n"
    spec = load(table, path="e", directory="/srv")
    assert "hunter2" not in explain(spec)
    assert explain(spec, values=True).count("hunter2") == 6
    bad = table.replace("command = [", "command = [1, ") + "replicas = 'postgres://a:hunter2@b'\n"
    problems = check(bad, path="e", directory="/srv").problems
    assert len(problems) >= 2
    assert "hunter2" not in "\n".join(map(str, problems))


def test_what_a_terminal_would_obey_is_escaped_in_toml() -> None:
    word = "a\x1b[2J\x9b\u202e\x7f\n"
    spec = Spec(service={"web": Service("web", (word,), port=80)})
    text = explain(spec)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert tomllib.loads(text)["service"]["web"]["command"] == [word]


def test_schema_accepts_what_check_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in (
        FULL,
        "[service.a]\ncommand = ['a']\nlisten = ['127.0.0.1:1', ':2']\nrestart.success_exit = 3",
        "[service.a]\ncommand = ['a']\nlisten = { address = ':2' }\nstop_signal = 'SIGRTMIN+2'",
        "[service.a]\ncommand = ['a']\n[group.g]\nservices = 'a'\n[defaults]\nwatchdog = '1s'",
    ):
        assert check(text, path="e", directory="/srv").problems == ()
        assert list(validator.iter_errors(tomllib.loads(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "[service.a]",
        "[service.1]\ncommand = ['a']",
        "[service.a]\ncommand = 'a'",
        "[service.a]\ncommand = ['a']\nfoo = 1",
        "[service.a]\ncommand = ['a']\nname = 'a'",
        "[service.a]\ncommand = ['a']\nport = 0",
        "[service.a]\ncommand = ['a']\nstop_timeout = 5",
        "[service.a]\ncommand = ['a']\nstop_signal = 'SIGFOO'",
        "[service.a]\ncommand = ['a']\nrestart.policy = 'maybe'",
        "[defaults]\nport = 1",
        "[services]",
    ],
)
def test_schema_refuses_what_check_refuses(text: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not validator.is_valid(tomllib.loads(text))
    assert check(text, path="e", directory="/srv").problems != ()


def test_schema_has_texts_and_defaults_for_people() -> None:
    defs = json_schema()["$defs"]
    service = defs["Service"]["properties"]
    assert service["start_timeout"]["default"] == "1m30s"
    assert defs["Log"]["properties"]["max_size"]["default"] == "10M"
    assert "command" not in defs["Defaults"]["properties"]
    assert all(
        item["description"] for table in defs.values() for item in table["properties"].values()
    )


def test_generated_pages_are_up_to_date() -> None:
    hint = "run python -m everup.config"
    assert (DOCS / "config.md").read_text(encoding="utf-8") == reference(), hint
    committed = json.loads((DOCS / "everup.schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), hint
