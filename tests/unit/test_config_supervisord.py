"""Conversions of supervisord.conf: the same processes as supervisord itself would run (its 4.3.0
was asked for the expected values), nothing with more rights, and no loss that is not told."""

import re

import pytest

from everup.config import ConfigError, check
from everup.config.init import Drafted, Surroundings, from_supervisord
from everup.config.template import expand
from everup.model.spec import Service, Spec

AROUND = Surroundings({"HOME": "/home/me", "USER": "me", "N": "3"}, "box", "/srv/conf")


def spec(drafted: Drafted) -> Spec:
    report = check(drafted.text, path="e", directory="/srv")
    assert report.problems == (), drafted.text
    assert report.spec is not None
    return report.spec


def convert(text: str, around: Surroundings = AROUND) -> tuple[dict[str, Service], Drafted]:
    drafted = from_supervisord(text, around)
    return spec(drafted).service, drafted


def processes(services: dict[str, Service]) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Command and environment of each process, templates filled in."""
    found: dict[str, tuple[list[str], dict[str, str]]] = {}
    for name, service in services.items():
        for replica in range(1, service.replicas + 1):
            port = None if service.port is None else service.port + replica - 1

            def full(
                text: str, name: str = name, replica: int = replica, port: int | None = port
            ) -> str:
                return expand(text, service=name, replica=replica, port=port)

            argv = [full(word) for word in service.command]
            variables = {key: full(value) for key, value in service.environment.items()}
            found[f"{name}.{replica}"] = argv, variables
    return found


WHOLE = """\
[supervisord]
logfile = /var/log/s.log ; comment
[inet_http_server]
password = hunter2
[program:web]
command = /bin/web --port=80%(process_num)02d --x={a} %(ENV_HOME)s
process_name = %(program_name)s_%(process_num)02d
numprocs = 3
directory = /srv/web
user = www
umask = 22
environment = A="1,2",B=%(ENV_HOME)s,
  C='x %(numprocs)d'
autorestart = true
startsecs = 5
startretries = 7
stopsignal = QUIT
stopwaitsecs = 30
stdout_logfile = /var/log/web.log
stdout_logfile_maxbytes = 50MB
stdout_logfile_backups = 3
priority = 10
exitcodes = 0,2
serverurl = AUTO
[program:my.worker]
command = bash -c "a | b"
autostart = false
[group:all]
programs = web,my.worker,nope
priority = 3
[eventlistener:mail]
command = crashmail
"""


def test_a_whole_file() -> None:
    services, drafted = convert(WHOLE)
    web, worker = services["web"], services["my-worker"]
    assert web.command == (
        "sh",
        "-c",
        "exec env B=\"$HOME\" /bin/web '--port={port}' '--x={{a}}' \"$HOME\"",
    )
    assert (web.port, web.replicas) == (8000, 3)
    assert (web.directory, web.user, web.umask) == ("/srv/web", "www", "022")
    assert web.environment == {"A": "1,2", "C": "x 3"}
    assert web.restart.policy == "always"
    assert web.restart.reset_after == 5
    assert web.restart.success_exit == (0, 2)
    assert (web.stop_signal, web.stop_timeout) == ("SIGQUIT", 30)
    assert (web.log.max_size, web.log.files) == (50 << 20, 3)
    assert worker.command == ("bash", "-c", "a | b")
    assert worker.restart.policy == "on-failure"
    assert not worker.autostart
    assert worker.depends_on == ("web",)  # by their priorities
    assert spec(drafted).group["all"].services == ("web", "my-worker")
    for lost in (
        "# not converted: startretries = 7",
        "# not converted: stdout_logfile = /var/log/web.log",
        "# named my.worker in supervisord",
        "# not converted: member nope of group all",
        "# [supervisord] was about supervisord itself",
        "#   logfile = /var/log/s.log\n",
        "# not converted: [inet_http_server]",
        "#   password = ********",
        "# not converted: [eventlistener:mail]",
        "#   command = crashmail",
    ):
        assert lost in drafted.text
    assert [loss.text.split(":")[0] for loss in drafted.losses if loss.grave] == ["[eventlistener"]
    assert drafted.losses[0].grave


NUMBERED = [
    # port and number from 1 on: replicas of one service
    ("--port=80%(process_num)02d", "", 2, ["--port=8000", "--port=8001"]),
    ("--port=%(process_num)d", "numprocs_start=8001", 1, ["--port=8001", "--port=8002"]),
    ("w%(process_num)d", "numprocs_start=1", 1, ["w1", "w2"]),
    ("%(process_num)d900%(process_num)d", "numprocs_start=1", 1, ["19001", "29002"]),
    # anything else: each its own
    ("w%(process_num)02d", "numprocs_start=1", 2, ["w01", "w02"]),
    ("w%(process_num)d/%(numprocs)d", "", 2, ["w0/2", "w1/2"]),
    ("%(process_num)3d", "numprocs_start=1", 2, ["1", "2"]),
    ("8080%(process_num)d 90%(process_num)d0", "", 2, ["80800 9000", "80801 9010"]),
    ("--port=809%(process_num)d", "numprocs_start=9", 2, ["--port=8099", "--port=80910"]),
]


@pytest.mark.parametrize(("word", "option", "_services", "expected"), NUMBERED)
def test_each_process_has_the_arguments_that_it_had(
    word: str, option: str, _services: int, expected: list[str]
) -> None:
    text = f"[program:p]\ncommand=x {word}\nnumprocs=2\n{option}\n"
    text += "process_name=%(program_name)s_%(process_num)d\nenvironment=V='%(process_num)d'\n"
    if "numprocs_start=1\n" not in text:
        text = text.replace("environment", "x")
    services, drafted = convert(text)
    found = processes(services)
    assert [" ".join(argv[1:]) for argv, _ in found.values()] == expected
    if "numprocs_start=1\n" in text:
        assert [variables["V"] for _, variables in found.values()] == ["1", "2"]
    assert drafted.losses == ()


def test_what_replicas_cannot_differ_by_makes_services_of_their_own_names() -> None:
    text = "[program:p]\ncommand=x\nnumprocs=2\nprocess_name=%(program_name)s-%(process_num)02d\n"
    services, _ = convert(text)
    assert list(services) == ["p"]
    services, drafted = convert(text + "directory=/d/%(process_num)02d\n[group:g]\nprograms=p\n")
    assert [(s.name, s.directory) for s in services.values()] == [
        ("p-00", "/d/00"),
        ("p-01", "/d/01"),
    ]
    assert spec(drafted).group["g"].services == ("p-00", "p-01")


def test_a_port_is_given_once() -> None:
    lines = "command=x 80%(process_num)02d\nnumprocs=2\nprocess_name=%(process_num)d\n"
    services, _ = convert(f"[program:a]\n{lines}[program:b]\n{lines}")
    assert [argv for argv, _ in processes(services).values()] == [["x", "8000"], ["x", "8001"]] * 2


@pytest.mark.parametrize(
    ("whole", "own", "user", "starts"),
    [
        ("user=nobody", "", "nobody", True),
        ("user=nobody", "user=www", "www", True),
        ("", "user=%(ENV_USER)s", "me", True),
        ("user=%(ENV_USER)s", "", "me", True),
        ("environment=U='www'", "user=%(ENV_U)s", "www", True),
        ("environment=U='%(ENV_USER)s'", "user=%(ENV_U)s", "me", True),
        ("", "user=%(ENV_NO)s", None, False),
        ("user=%(ENV_NO)s", "", None, False),
        ("user=%(ENV_NO)s", "user=www", "www", True),
        ("user=nobody", "user=%(ENV_NO)s\nautostart=true", "nobody", False),
        ("", "", None, True),
    ],
)
def test_nothing_gets_more_rights(whole: str, own: str, user: str | None, starts: bool) -> None:
    """A user that cannot be told keeps the program from starting, rather than start it as root."""
    text = f"[supervisord]\n{whole}\n[program:p]\ncommand=x\n{own}\n"
    services, drafted = convert(text)
    assert (services["p"].user, services["p"].autostart) == (user, starts)
    if not starts:
        assert drafted.losses[0].grave
        assert drafted.losses[0].text.startswith("user = %(ENV_NO)s")


def test_what_supervisord_hands_on_reaches_the_programs() -> None:
    services, drafted = convert(
        "[supervisord]\numask=027\ndirectory=/app\nminfds=65536\nenvironment=A='a',B='b%(ENV_USER)s'\n"
        "[program:p]\ncommand=x %(ENV_A)s\nenvironment=A='own'\ndirectory=sub\n"
        "[program:q]\ncommand=x %(ENV_A)s %(ENV_B)s\numask=2\n"
    )
    p, q = services["p"], services["q"]
    assert (p.umask, p.directory, p.limits.nofile) == ("027", "/app/sub", 65536)
    assert (q.umask, q.directory, q.limits.nofile) == ("002", "/app", 65536)
    assert p.environment == {"A": "own"}
    assert p.command == ("sh", "-c", 'exec env B=b"$USER" x own')
    assert q.command == ("sh", "-c", 'exec env B=b"$USER" x a b"$USER"')
    assert drafted.losses == ()


def test_variables_mean_what_they_were_before() -> None:
    """``FOO=%(ENV_HOME)s`` is the HOME of supervisord, also where the program gets another."""
    services, _ = convert("[program:p]\ncommand=x\nenvironment=HOME='/h',FOO='%(ENV_HOME)s/foo'\n")
    assert services["p"].command == ("sh", "-c", 'exec env HOME=/h FOO="$HOME"/foo x')
    assert services["p"].environment == {}


def test_variables_of_the_surroundings_are_passed_on() -> None:
    services, drafted = convert(
        "[program:p]\ncommand=x %(ENV_SECRET)s\nenvironment=DSN='db:%(ENV_DSN)s',H='%(ENV_HOME)s'\n"
    )
    p = services["p"]
    assert p.command == ("sh", "-c", 'exec env DSN=db:"$DSN" H="$HOME" x "$SECRET"')
    assert p.pass_environment == ("SECRET", "DSN")
    assert drafted.losses == ()


def test_numbers_may_come_from_the_environment() -> None:
    services, drafted = convert(
        "[program:p]\ncommand=x %(host_node_name)s\nprocess_name=%(process_num)d\n"
        "numprocs=%(ENV_N)s\nnumprocs_start=1\n"
    )
    assert (services["p"].replicas, services["p"].command) == (3, ("x", "box"))
    assert "%(ENV_N)s was taken from the environment" in drafted.text
    assert drafted.losses == ()


def test_here_is_the_directory_of_the_file_wherever_the_program_runs() -> None:
    services, _ = convert(
        "[program:p]\ncommand=%(here)s/bin/run\ndirectory=/else\nenvironment=P='%(here)s'\n"
    )
    p = services["p"]
    assert (p.command, p.directory) == (("/srv/conf/bin/run",), "/else")
    assert p.environment == {"P": "/srv/conf"}


def test_includes_are_read_and_here_is_their_own_directory() -> None:
    files = {"/etc/s/conf.d/*.conf": [("/etc/s/conf.d/a.conf", "/etc/s/conf.d",
                                       "\ufeff[program:a]\ncommand=%(here)s/a\n")]}  # fmt: skip
    text = "[supervisord]\nuser=www\n[include]\nfiles = /etc/s/conf.d/*.conf  other/*.ini\n"
    drafted = from_supervisord(text, AROUND, lambda pattern: files.get(pattern, []))
    (a,) = spec(drafted).service.values()
    assert (a.command, a.user) == (("/etc/s/conf.d/a",), "www")
    assert [loss.text for loss in drafted.losses] == [
        "[include] files = other/*.ini: there is no such file that can be read"
    ]
    assert drafted.grave == 1


def test_a_fastcgi_program_gets_its_socket_as_standard_input() -> None:
    services, drafted = convert(
        "[fcgi-program:php]\nsocket=unix:///run/%(program_name)s.sock\nsocket_mode=0660\n"
        "socket_backlog=77\ncommand=php-cgi -b\nnumprocs=4\nprocess_name=%(process_num)d\n"
        "[fcgi-program:t]\nsocket=tcp://localhost:9000\ncommand=t\n"
    )
    php, t = services["php"], services["t"]
    (listener,) = php.listen
    assert (listener.address, listener.mode, listener.backlog, php.replicas) == (
        "unix:/run/php.sock",
        "0660",
        77,
        4,
    )
    clean = "unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES; exec"
    assert php.command == ("sh", "-c", f"{clean} php-cgi -b 0<&3 3<&-")
    assert t.command == ("sh", "-c", f"{clean} t 0<&3 3<&-")
    assert t.listen[0].address == "localhost:9000"
    assert drafted.losses == ()
    for owner, user, group in (("www:ops", "www", "ops"), ("33", "33", None), ("", "nobody", None)):
        text = f"[fcgi-program:p]\nsocket=unix:///s\ncommand=x\nuser=nobody\nsocket_owner={owner}\n"
        services, drafted = convert(text)
        (listener,) = services["p"].listen
        assert (listener.user, listener.group, drafted.losses) == (user, group, ())
    services, drafted = convert("[fcgi-program:p]\nsocket=tcp://host.example:9\ncommand=x\n")
    assert not services["p"].autostart
    assert drafted.grave == 1


def test_priorities_become_dependencies() -> None:
    services, _ = convert(
        "[program:db]\ncommand=db\npriority=1\n[program:once]\ncommand=o\npriority=2\n"
        "autorestart=false\n[program:web]\ncommand=w\n[program:api]\ncommand=a\n"
        "[program:last]\ncommand=l\npriority=1000\n"
    )
    assert {name: service.depends_on for name, service in services.items()} == {
        "db": (),
        "once": ("db",),
        "web": ("db",),  # nobody can wait for what ends by itself
        "api": ("db",),
        "last": ("web", "api"),
    }


@pytest.mark.parametrize(
    ("option", "lost"),
    [
        ("numprocs = many", "numprocs = many: expected a whole number"),
        ("numprocs = %(ENV_NO)s", "numprocs = %(ENV_NO)s: %(ENV_NO)s: the environment here has no"),
        ("stopsignal = FOO", "stopsignal = FOO: unknown signal"),
        ("umask = 99", "umask = 99"),
        ("stdout_logfile_maxbytes = 0", "stdout_logfile_maxbytes = 0: everup's logs are always b"),
        ("directory = /x/%(nope)s", "directory = /x/%(nope)s: %(nope)s is unknown to supervisord"),
        ("environment = A=1,B", "environment = A=...,B: a part of it could not be read"),
        ("environment = A='1", "environment"),
        ("autorestart = maybe", "autorestart = maybe: expected true or false"),
        ("stopasgroup = maybe", "stopasgroup = maybe: expected true or false"),
        ("startretries = 3", "startretries = 3: everup goes on trying"),
        ("stdout_syslog = true", "stdout_syslog = true: "),
    ],
)
def test_what_cannot_be_converted_is_told(option: str, lost: str) -> None:
    drafted = from_supervisord(f"[program:web]\ncommand = a\n{option}\n", AROUND)
    assert f"# not converted: {lost}" in drafted.text
    assert [loss.where for loss in drafted.losses] == ["service.web"]
    spec(drafted)


@pytest.mark.parametrize("command", ["", "a 'b", "%(nope)s", "%(process_num)q%(nope)d"])
def test_a_program_whose_command_is_lost_does_not_start(command: str) -> None:
    services, drafted = convert(f"[program:p]\ncommand = {command}\nautostart = true\n")
    if "nope" in command or not command or "'" in command:
        assert not services["p"].autostart
        assert drafted.grave


def test_the_stop_signal_reaches_whom_it_reached() -> None:
    services, drafted = convert("[program:p]\ncommand=x\nstopasgroup=true\nkillasgroup=true\n")
    assert services["p"].stop_scope == "all"
    assert drafted.losses == ()


def test_signals_may_be_numbers() -> None:
    services, _ = convert("[program:p]\ncommand=x\nstopsignal=3\n")
    assert services["p"].stop_signal == "SIGQUIT"


def test_every_line_of_the_file_is_somewhere_in_the_draft() -> None:
    """Whatever is not a key of the new config is a comment in it."""
    text = "[supervisord]\nloglevel=info\nfoo=bar\n[x]\ny=z\n[eventlistener:e]\ncommand=c\n"
    text += "[program:p]\ncommand=cmd\nunheard_of=1\nstderr_logfile=/e.log\nkillasgroup=true\n"
    drafted = from_supervisord(text, AROUND)
    for key in re.findall(r"^(\w+)=", text, re.MULTILINE):
        assert key in drafted.text
    assert {loss.text.split(":")[0] for loss in drafted.losses} == {
        "[x]", "[eventlistener", "stderr_logfile = /e.log"
    }  # fmt: skip


def test_no_ini_file_names_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        from_supervisord("\n[program:web]\ncommand = x\nnonsense\n")
    assert str(caught.value).startswith("supervisord.conf:4: expected [section] headers")
    with pytest.raises(ConfigError, match=r"supervisord.conf:1: expected"):
        from_supervisord("nonsense")
    for text in ("[supervisord]\n", "[php]\nx = 1\n", "[eventlistener:e]\ncommand = x\n"):
        with pytest.raises(ConfigError, match=r"there is no \[program:NAME\] in it; is"):
            from_supervisord(text)
    with pytest.raises(ConfigError, match=r"in it: \[include\] files = d/\*: there is no such"):
        from_supervisord("[include]\nfiles = d/*\n")


def test_a_byte_order_mark_is_no_text() -> None:
    services, _ = convert("\ufeff[program:p]\ncommand=x\n")
    assert list(services) == ["p"]


def test_check_warns_of_what_was_drafted_with_losses() -> None:
    """As long as the comments stand; whoever has settled them deletes them."""
    drafted = from_supervisord(
        "[program:a]\ncommand=x\numask=99\nstartretries=9\n[program:b]\ncommand=y\n"
        "[eventlistener:e]\ncommand=z\n",
        AROUND,
    )
    warnings = check(drafted.text, path="e", directory="/srv").warnings
    assert [(w.key, w.message.split(":")[0]) for w in warnings] == [
        ("service.a", "drafted with 2 things not converted"),
        ("", "drafted with 1 thing not converted"),
    ]
    assert all(w.line for w in warnings)
    settled = "\n".join(x for x in drafted.text.split("\n") if "not converted" not in x)
    assert check(settled, path="e", directory="/srv").warnings == ()


@pytest.mark.parametrize("file", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_program_that_writes_to_the_log_of_the_container_still_does(file: str) -> None:
    """As most images have it: both outputs, without bounds, which a pipe has not."""
    services, drafted = convert(
        f"[program:p]\ncommand=x\nstderr_logfile=/dev/stderr\nstderr_logfile_maxbytes=0\n"
        f"stdout_logfile={file}\nstdout_logfile_maxbytes=0\n"
    )
    assert services["p"].log.forward == "stdout"
    assert drafted.losses == ()
    assert "# stderr_logfile = /dev/stderr: log.forward copies both" in drafted.text


def test_a_file_of_its_own_beside_the_log_of_the_container_is_told() -> None:
    services, drafted = convert(
        "[program:p]\ncommand=x\nstdout_logfile=/dev/stdout\nstderr_logfile=/var/log/e.log\n"
    )
    assert services["p"].log.forward == "stdout"
    assert "# not converted: stderr_logfile = /var/log/e.log" in drafted.text
