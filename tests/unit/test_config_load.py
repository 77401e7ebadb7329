"""Messages, shorthands and cross-checks of the config."""

from collections.abc import Callable

import pytest

from everup.config import SIGNALS, ConfigError, Report, check, load
from everup.model.spec import Listener, Spec, Strategy, Watchdog

WEB = '[service.web]\ncommand = ["web"]\n'


def report(text: str, known_users: Callable[[str], bool] | None = None) -> Report:
    return check(text, path="everup.toml", directory="/srv", known_users=known_users)


def spec(text: str) -> Spec:
    return load(text, path="everup.toml", directory="/srv")


def problems(text: str) -> list[str]:
    return [str(problem) for problem in report(text).problems]


def only(text: str) -> str:
    """The one problem of a text, without its file."""
    (problem,) = problems(text)
    return problem.removeprefix("everup.toml:")


def warning(text: str) -> str:
    found = report(text)
    assert found.problems == ()
    (one,) = found.warnings
    return str(one).removeprefix("everup.toml:")


def test_the_example_of_the_design_loads() -> None:
    web = spec(
        """
        [service.web]
        command   = ["uvicorn", "shop:app", "--fd", "3"]
        listen    = "127.0.0.1:8080"
        replicas  = 2
        depends_on = ["db"]
        user      = "shop"
        environment = { DB = "127.0.0.1:5432" }
        limits    = { memory = "512M", tasks = 200 }
        [service.web.probe]
        readiness = { http = "/readyz", interval = "1s", timeout = "500ms", success_threshold = 2 }
        liveness  = { http = "/healthz", interval = "1s", failure_threshold = 3 }
        [service.web.restart]
        policy = "always"
        intensity = { limit = 5, period = "10s" }
        [service.db]
        command = ["postgres", "-D", "data"]
        stop_signal = "INT"
        """
    ).service["web"]
    assert web.name == "web"
    assert web.listen == (Listener("main", "127.0.0.1:8080"),)
    assert web.limits.memory == 512 << 20
    assert web.probe.readiness is not None
    assert web.probe.readiness.timeout == 0.5
    assert web.directory == "/srv"


def test_every_problem_is_told_at_once_and_in_order() -> None:
    with pytest.raises(ConfigError) as caught:
        spec(
            """\
[defaults]
restart = { frob = 1 }
[service.web]
comand = ["x"]
command = "uvicorn shop:app"
listen = { a = "127.0.0.1:0", b = 80 }
replicas = "2"
depends_on = ["dbb", "db"]
limits = { memory = "512X" }
probe.readiness = { http = "/readyz", interval = 3 }
probe.liveness = { http = "/healthz", tcp = "listen" }
restart.policy = "allways"
[service.db]
stop_signal = "SIGFOO"
depends_on = "web"
"""
        )
    lines = [problem.line for problem in caught.value.problems]
    assert lines == [2, 4, 5, 6, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14]
    text = str(caught.value)
    for part in (
        "everup.toml:4: service.web.comand: unknown key; did you mean 'command'?; valid: command,",
        '5: service.web.command = "uvicorn shop:app": expected a list, because no shell is used; '
        'write ["uvicorn", "shop:app"]',
        '6: service.web.listen.a = "127.0.0.1:0": port 0',
        '6: service.web.listen.b = 80: expected an address in quotes, like "127.0.0.1:80"',
        "everup.toml:8: service.web.depends_on: services wait for each other: web -> db -> web",
        "everup.toml:10: service.web.probe.readiness.interval = 3: expected a duration with a "
        'unit, like "500ms"',
        "everup.toml:13: service.db: a service needs a command",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\na = 2", "2: Cannot overwrite a value"),
        ("[service.web\n", "1:13: Expected ']' at the end of a table declaration"),
        (
            "x = 127.0.0.1:80",
            "1:10: Expected newline or end of document after a statement; is this",
        ),
        ("\n\n= 3", "3:1: Invalid statement"),
        (
            f"{WEB}port = 'x'",
            '3: service.web.port = "x": expected a whole number, 1 to 65535, without',
        ),
        (f"{WEB}port = 70000", "3: service.web.port = 70000: expected a whole number, 1 to 65535"),
        (f"{WEB}port = 8.0", "3: service.web.port = 8.0: expected a whole number, 1 to 65535"),
        (f"{WEB}port = true", "3: service.web.port = true: expected a whole number"),
        (f"{WEB}notify = 'yes'", '3: service.web.notify = "yes": expected true or false, without'),
        (f"{WEB}user = 1000", "3: service.web.user = 1000: expected a string in quotes, not a num"),
        (
            f"{WEB}umask = '9'",
            '3: service.web.umask = "9": expected three octal digits, like "027"',
        ),
        (f"{WEB}log = 3", "3: service.web.log = 3: expected a table"),
        (f"{WEB}log.max_size = '1K'", '3: service.web.log.max_size = "1K": expected a size with a'),
        (
            f"{WEB}log.max_size = 1e6",
            "3: service.web.log.max_size = 1000000.0: expected a size with",
        ),
        (f"{WEB}stop_timeout = 5.0", "3: service.web.stop_timeout = 5.0: expected a duration with"),
        (f"{WEB}start_timeout = '0s'", '3: service.web.start_timeout = "0s": expected a duration'),
        (f"{WEB}limits.cpu = inf", "3: service.web.limits.cpu = inf: expected a finite number"),
        (
            f"{WEB}nice = 1979-05-27",
            "3: service.web.nice = 1979-05-27: no key takes a date or time",
        ),
        (
            f"{WEB}name = 'x'",
            "3: service.web.name: the name is that of the table, 'web'; leave this",
        ),
        (
            f"{WEB}restart.success_exit = 300",
            "3: service.web.restart.success_exit = 300: expected a",
        ),
        (
            f"{WEB}restart.jitter = 'ful'",
            '3: service.web.restart.jitter = "ful": unknown choice; did',
        ),
        (f"{WEB}depends_on = 3", "3: service.web.depends_on = 3: expected a list of strings, like"),
        (
            f"{WEB}hooks.pre_start = 'a | b'",
            '3: service.web.hooks.pre_start = "a | b": expected a li',
        ),
        ("[service.web]\ncommand = []", "2: service.web.command = []: expected at least one item"),
        (
            "[service.web]\ncommand = ['a', 1]",
            "2: service.web.command[1] = 1: expected a string in",
        ),
        (
            "[service.web]\ncommand = ['']",
            '2: service.web.command[0] = "": the program\'s name is em',
        ),
        (
            "[service.1x]\ncommand = ['a']",
            "1: service.1x: expected a name: a letter, then at mo",
        ),
        (
            "[service]\ncommand = ['a']",
            '2: service.command = ["a"]: expected a table; each service',
        ),
        (
            "[[service]]\ncommand = ['a']",
            "1: service = [{ ... }]: expected tables named [service.NA",
        ),
        (
            "[web]\ncommand = ['a']",
            "1: web: unknown key; a service's table is named [service.web]; v",
        ),
        (
            "[services.web]\ncommand = ['a']",
            "1: services: unknown key; did you mean 'service'?; valid",
        ),
        ("everup = 3", "1: everup = 3: expected a table"),
        (
            "[everup]\njournal_retention = '1m'",
            '2: everup.journal_retention = "1m": expected a durat',
        ),
    ],
)
def test_one_mistake_one_line(text: str, expected: str) -> None:
    assert only(text).startswith(expected)


def test_secrets_stay_out_of_messages() -> None:
    text = (
        f"{WEB}enviroment = {{ PASSWORD = 'hunter2' }}\nenv = ['A=hunter2']\n"
        "environment = { A = 22222, B = '{hunter2', C = ['hunter2'], D = 'hunter2}' }\n"
        "probe.liveness = { http = 'http://h/', headers = { A = \"hunter2\\n\" } }\n"
    )
    found = problems(text)
    assert len(found) == 7
    assert not any("hunter2" in problem or "22222" in problem for problem in found)
    assert sum("(hidden)" in problem for problem in found) == 5
    assert "did you mean 'environment'" in found[0]
    whole = only(f"{WEB}environment = 'A=hunter2'")
    assert "(hidden)" in whole
    assert "hunter2" not in whole


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('listen = "127.0.0.1:1"', (Listener("main", "127.0.0.1:1"),)),
        (
            'listen = ["127.0.0.1:1", "unix:/x", ":3"]',
            (
                Listener("main", "127.0.0.1:1"),
                Listener("main2", "unix:/x"),
                Listener("main3", ":3"),
            ),
        ),
        (
            'listen = { http = "0.0.0.0:80", b = { address = "unix:/x", mode = "0600" } }',
            (Listener("http", "0.0.0.0:80"), Listener("b", "unix:/x", mode="0600")),
        ),
        ('listen = { address = ":80", backlog = 9 }', (Listener("main", ":80", backlog=9),)),
        ('listen = [{ name = "x", address = ":80" }]', (Listener("x", ":80"),)),
    ],
)
def test_ways_to_write_listen(line: str, expected: tuple[Listener, ...]) -> None:
    assert spec(WEB + line).service["web"].listen == expected


def test_other_shorthands() -> None:
    loaded = spec(
        f"""{WEB}
        depends_on = "db"
        environment_file = ["-web.env", "/etc/x"]
        watchdog = "10s"
        directory = "sub"
        stop_signal = "term"
        restart.success_exit = 3
        limits.memory = 2097152
        [service.db]
        command = ["db"]
        environment_file = "a"
        stop_signal = "RTMIN+3"
        [group.g]
        services = "web"
        strategy = "one_for_all"
        [everup]
        state_dir = "state"
        """
    )
    web, db = loaded.service["web"], loaded.service["db"]
    assert web.depends_on == ("db",)
    assert web.environment_file == ("-/srv/web.env", "/etc/x")
    assert db.environment_file == ("/srv/a",)
    assert web.watchdog == Watchdog(10.0)
    assert (web.directory, db.directory) == ("/srv/sub", "/srv")
    assert web.restart.success_exit == (3,)
    assert web.limits.memory == 2 << 20
    assert loaded.group["g"].services == ("web",)
    assert loaded.group["g"].strategy is Strategy.ONE_FOR_ALL
    assert loaded.everup.state_dir == "/srv/state"
    assert SIGNALS[web.stop_signal] == 15
    assert SIGNALS[db.stop_signal] == 37


DB = '[service.db]\ncommand = ["db"]\n'
PROBE = f"{WEB}port = 5000\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{WEB}depends_on = 'wob'",
            '3: service.web.depends_on = "wob": there is no such service;',
        ),
        (
            f"{WEB}depends_on = 'web'",
            "3: service.web.depends_on: services wait for each other: web -> w",
        ),
        (f"{WEB}[group.g]\nservices = ['x']", '4: group.g.services[0] = "x": there is no such'),
        (
            f"{WEB}[group.g]\nservices = ['web', 'web']",
            '4: group.g.services[1] = "web": named twice',
        ),
        (
            f"{WEB}[group.g]\nservices = 'web'\n[group.h]\nservices = 'web'",
            "6: group.h.services = \"web\": is in group 'g' already",
        ),
        (
            f"{PROBE}probe.liveness = {{}}",
            "4: service.web.probe.liveness: a probe needs exactly one",
        ),
        (
            f"{WEB}probe.startup.http = '/'",
            '3: service.web.probe.startup.http = "/": asks the replica',
        ),
        (
            f"{WEB}probe.startup.tcp = 'listen'",
            '3: service.web.probe.startup.tcp = "listen": asks the',
        ),
        (
            f"{WEB}probe.startup.tcp = 'a'",
            '3: service.web.probe.startup.tcp = "a": expected "listen"',
        ),
        (
            f"{WEB}probe.startup.tcp = 'a:0'",
            '3: service.web.probe.startup.tcp = "a:0": expected "lis',
        ),
        (
            f"{WEB}probe.startup.http = 'x'",
            '3: service.web.probe.startup.http = "x": expected a path',
        ),
        (
            f"{WEB}probe.startup.http = 'ftp://x'",
            '3: service.web.probe.startup.http = "ftp://x": exp',
        ),
        (
            f"{WEB}probe.startup.http = 'http://['",
            '3: service.web.probe.startup.http = "http://[": e',
        ),
        (
            f"{PROBE}probe.startup = {{ http = '/', status = '399-200' }}",
            '4: service.web.probe.startup.status = "399-200": expected a status or a range',
        ),
        (
            f"{PROBE}probe.startup = {{ http = '/', body = '(' }}",
            '4: service.web.probe.startup.body = "(": no valid regular expression: missing )',
        ),
        (
            f"{PROBE}probe.startup = {{ http = '/', listener = 'x' }}",
            '4: service.web.probe.startup.listener = "x": the service has no such listener',
        ),
        (
            f"{PROBE}probe.startup = {{ http = '/', method = 'G T' }}",
            '4: service.web.probe.startup.method = "G T": expected an HTTP method',
        ),
        (
            f"{WEB}listen = 'localhost'",
            '3: service.web.listen = "localhost": expected "127.0.0.1:8080"',
        ),
        (
            f"{WEB}listen = 8080",
            "3: service.web.listen = 8080: expected an address in quotes, like",
        ),
        (
            f"{WEB}listen = {{ 'a:b' = ':1' }}",
            '3: service.web.listen."a:b": a listener\'s name has 1 to 255',
        ),
        (
            f"{WEB}listen = {{ a = {{ address = 'unix:/a', mode = '9' }} }}",
            '3: service.web.listen.a.mode = "9": expected three octal digits',
        ),
        (
            f"{WEB}listen = ':80'\n{DB}listen = '*:80'",
            "6: service.db.listen = \"*:80\": listener 'main' of service 'web' has this address",
        ),
        (
            f"{WEB}listen = ':80'\n{DB}listen = '[::]:80'",
            "6: service.db.listen = \"[::]:80\": listener 'main' of service 'web' has this address",
        ),
        (f"{WEB}hooks.pre_start = ['{{x}}']", '3: service.web.hooks.pre_start[0] = "{x}": only'),
        (
            f"{WEB}probe.startup.exec = ['{{']",
            '3: service.web.probe.startup.exec[0] = "{": a { with',
        ),
        (
            f"{WEB}probe.startup.tcp = 'a:{{port}}'",
            '3: service.web.probe.startup.tcp = "a:{port}": {p',
        ),
        (
            f"{WEB}listen = ['unix:/a', 'unix:/a']",
            "3: service.web.listen[1] = \"unix:/a\": listener 'main' of service 'web' has this",
        ),
        (
            f"{WEB}port = 5000\nreplicas = 3\nstandby = 1\n{DB}port = 5003",
            "8: service.db.port = 5003: port 5003 overlap with 5000 to 5003 of service 'web'",
        ),
        (
            f"{WEB}port = 5000\nreplicas = 3\n{DB}listen = '127.0.0.1:5002'",
            "3: service.web.port = 5000: ports 5000 to 5002: 127.0.0.1:5002 is listener 'main' ",
        ),
        (
            f"{WEB}port = 65535\nreplicas = 2",
            "3: service.web.port = 65535: 2 replicas need ports 65535 to 65536",
        ),
        (
            f"{WEB}stop_signal = 'SIGTRM'",
            '3: service.web.stop_signal = "SIGTRM": unknown signal; did y',
        ),
        (
            "[service.a]\ncommand = ['{port}']",
            '2: service.a.command[0] = "{port}": {port} needs the key',
        ),
        (
            "[service.a]\ncommand = ['{x}']",
            '2: service.a.command[0] = "{x}": only {replica}, {port}, {s',
        ),
        (
            "[service.a]\ncommand = ['a}']",
            '2: service.a.command[0] = "a}": a } without its {; write }}',
        ),
        (
            f"{WEB}type = 'oneshot'\nlisten = ':1'",
            "4: service.web.listen: a oneshot runs once and is d",
        ),
        (
            f"{WEB}type = 'oneshot'\nreplicas = 2",
            "4: service.web.replicas = 2: a oneshot runs once and",
        ),
        (
            f"{WEB}type = 'oneshot'\nprobe.liveness.exec = ['a']",
            "4: service.web.probe.liveness: a oneshot runs once and is done; it cannot have a",
        ),
        (f"{WEB}directory = ''", '3: service.web.directory = "": is empty'),
        (f"{WEB}environment.'A=B' = 'x'", '3: service.web.environment."A=B": a variable\'s name'),
        (
            f"{WEB}environment_file = '-'",
            '3: service.web.environment_file = "-": expected a file name',
        ),
    ],
)
def test_cross_checks(text: str, expected: str) -> None:
    assert only(text).startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", " no service is configured"),
        (f"{WEB}standby = 1", "3: service.web.standby = 1: without listen or port there is no"),
        (
            f"{WEB}listen = 'unix:/x'\nreplicas = 2",
            '3: service.web.listen = "unix:/x": the 2 replicas share this Unix socket',
        ),
        (
            f"{WEB}listen = [':80', '127.0.0.1:80']",
            '3: service.web.listen[1] = "127.0.0.1:80": overl',
        ),
        (f"{WEB}restart.delay = '1m'", "3: service.web.restart: max_delay is less than delay"),
        (
            f"{WEB}probe.startup = {{ exec = ['a'], body = 'x' }}",
            "3: service.web.probe.startup.body: has no effect",
        ),
        (
            f"{WEB}depends_on = 'db'\n{DB}replicas = 0",
            '3: service.web.depends_on = "db": has 0 replicas',
        ),
        (
            f"{WEB}type = 'oneshot'\nrestart.policy = 'always'",
            '4: service.web.restart.policy = "always": makes the oneshot run again and again',
        ),
    ],
)
def test_warnings(text: str, expected: str) -> None:
    assert warning(text).startswith(expected)


@pytest.mark.parametrize(
    "text",
    [
        f"{WEB}probe.liveness = {{ tcp = 'db.example:5432', timeout = '5s', interval = '1s' }}",
        f"{WEB}probe.liveness = {{ http = 'https://[::1]:{{port}}/x' }}\nport = 9",
        f"{WEB}listen = ['[::1]:80', ':80']",
        f"{WEB}port = 80\nprobe.startup.tcp = '127.0.0.1:{{port}}'",
        f"{WEB}port = 5000\nreplicas = 2\n{DB}port = 5002",
        f"{WEB}environment = {{ A = '{{replica}} {{{{}}}} {{service}}' }}",
        f"{WEB}umask = '027'\nuser = 'x'",
        f"\ufeff{WEB}",
        WEB.replace("\n", "\r\n"),
    ],
)
def test_what_is_fine(text: str) -> None:
    found = report(text)
    assert (found.problems, found.warnings) == ((), ())


def test_cycles_are_named_whole_and_once() -> None:
    text = "".join(
        f"[service.{name}]\ncommand = ['x']\ndepends_on = {needs}\n"
        for name, needs in {"e": ["a"], "a": ["b"], "b": ["c", "d"], "c": ["a"], "d": []}.items()
    )
    assert only(text) == "6: service.a.depends_on: services wait for each other: a -> b -> c -> a"


def test_a_long_chain_is_no_cycle() -> None:
    text = "".join(
        f"[service.s{i}]\ncommand = ['x']\ndepends_on = ['s{i + 1}', 's{min(i + 2, 2000)}']\n"
        for i in range(1999)
    )
    assert (
        problems(f"{text}[service.s1999]\ncommand = ['x']\n[service.s2000]\ncommand = ['x']") == []
    )


def test_users_are_checked_where_they_are_known() -> None:
    text = f"{WEB}user = 'shop'\n{DB}user = '1000'"
    assert report(text).problems == ()
    (problem,) = report(text, known_users=lambda name: name == "root").problems
    assert str(problem) == 'everup.toml:3: service.web.user = "shop": this machine has no such user'


def test_spec_only_without_problems() -> None:
    assert report(f"{WEB}port = 0").spec is None
    assert report(f"{WEB}standby = 1").spec is not None


def test_tls_files_of_a_probe() -> None:
    probe = 'probe.readiness = { http = "https://h/", tls_ca = "ca.pem", tls_cert = "/c.pem" }'
    found = report(f"{WEB}{probe}\n").spec
    assert found is not None
    readiness = found.service["web"].probe.readiness
    assert readiness is not None
    assert (readiness.tls_ca, readiness.tls_cert) == ("/srv/ca.pem", "/c.pem")
    for text, words in (
        ('http = "https://h/", tls_key = "k"', "is the key to a tls_cert, and there is none"),
        ('http = "https://h/", tls_ca = ""', "is empty; leave it out for none"),
    ):
        (problem,) = report(f"{WEB}probe.readiness = {{ {text} }}\n").problems
        assert words in str(problem)
    for text, words in (
        ('http = "http://h/", tls_ca = "x"', "does not ask a URL with https"),
        ('http = "https://h/", tls_verify = false, tls_ca = "x"', "tls_verify is false"),
        ('tcp = "h:1", tls_ca = "x"', "the probe is not an http one"),
    ):
        (warning,) = report(f"{WEB}probe.readiness = {{ {text} }}\n").warnings
        assert words in str(warning)
