"""First configs and conversions: valid as written, and nothing is dropped."""

import pytest

from everup.config import ConfigError, check
from everup.config.init import blank, from_procfile, from_supervisord
from everup.model.spec import Spec


def spec(text: str) -> Spec:
    report = check(text, path="e", directory="/srv")
    assert report.problems == ()
    assert report.spec is not None
    return report.spec


def test_blank_is_valid() -> None:
    report = check(blank(), path="e", directory="/srv")
    assert (report.problems, report.warnings) == ((), ())
    assert report.spec is not None
    assert list(report.spec.service) == ["web"]


def test_the_examples_in_blank_are_valid_too() -> None:
    lines = []
    for line in blank().split("\n"):
        body = line.removeprefix("# ")
        off = line.startswith("# ") and (" = " in body or body.startswith("["))
        lines.append(body if off else line)
    text = "\n".join(lines) + '\n[service.db]\ncommand = ["db"]\n'
    assert spec(text).group["shop"].services == ("web", "db")


PROCFILE = """\
# comment
web: RACK_ENV=production bundle exec puma -p $PORT -C "config/{x}.rb"
worker: bin/jobs | tee log
api: exec node server.js --port ${PORT:-3000}
release: ./manage.py migrate && echo $DONE
2x: A=$B cmd
home: ls $HOME
env: FOO='a b' cmd
inner: sh -c 'run $PORT'
?? what
"""


def test_procfile() -> None:
    text = from_procfile(PROCFILE, "shop")
    services = spec(text).service
    web = services["web"]
    assert web.command == ("bundle", "exec", "puma", "-p", "{port}", "-C", "config/{{x}}.rb")
    assert web.environment == {"RACK_ENV": "production"}
    assert web.port == 5000
    assert services["worker"].command == ("sh", "-c", "bin/jobs | tee log")
    assert services["worker"].port is None
    assert services["api"].command == ("node", "server.js", "--port", "{port}")
    assert services["api"].port == 5200
    assert services["release"].type == "oneshot"
    assert services["web"].depends_on == ("release",)
    assert services["s-2x"].command == ("sh", "-c", "A=$B cmd")
    assert services["home"].command == ("sh", "-c", "exec ls $HOME")
    assert services["env"].environment == {"FOO": "a b"}
    assert services["inner"].command == ("sh", "-c", "run $PORT")
    assert services["inner"].port == 5700
    assert "# not converted: line 10: ?? what" in text
    assert text.count("# this command needs a shell") == 4


SUPERVISORD = """\
[supervisord]
logfile = /var/log/s.log ; comment
[inet_http_server]
password = hunter2
[program:web]
command = /bin/web --port=80%(process_num)02d --x={a} %(ENV_FOO)s
process_name = %(program_name)s_%(process_num)02d
numprocs = 3
directory = /srv/web
user = www
umask = 22
environment = A="1,2",B=%(ENV_HOME)s,
  C='x %(process_num)d'
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


def test_supervisord() -> None:
    text = from_supervisord(SUPERVISORD)
    converted = spec(text)
    web, worker = converted.service["web"], converted.service["my-worker"]
    assert web.command == (
        "sh",
        "-c",
        "exec /bin/web '--port={port}' '--x={{a}}' \"$FOO\"",
    )
    assert (web.port, web.replicas) == (8000, 3)
    assert (web.directory, web.user, web.umask) == ("/srv/web", "www", "022")
    assert web.environment == {"A": "1,2", "C": "x {replica}"}
    assert web.restart.policy == "always"
    assert web.restart.reset_after == 5
    assert web.restart.success_exit == (0, 2)
    assert (web.stop_signal, web.stop_timeout) == ("SIGQUIT", 30)
    assert (web.log.max_size, web.log.files) == (50 << 20, 3)
    assert worker.command == ("bash", "-c", "a | b")
    assert worker.restart.policy == "on-failure"
    assert not worker.autostart
    assert converted.group["all"].services == ("web", "my-worker")
    for lost in (
        "# set FOO in environment",
        "# not converted: environment B = %(ENV_HOME)s",
        "# not converted: startretries = 7",
        "# not converted: stdout_logfile = /var/log/web.log",
        "# not converted: priority = 10",
        "# not converted: serverurl = AUTO",
        "# named my.worker in supervisord",
        "# not converted: member nope of group all",
        "# not converted: priority = 3",
        "# not converted: [supervisord]",
        "#   logfile = /var/log/s.log\n",
        "#   password = ********",
        "# not converted: [eventlistener:mail]",
        "#   command = crashmail",
    ):
        assert lost in text


@pytest.mark.parametrize(
    ("option", "lost"),
    [
        ("numprocs = many", "numprocs = many"),
        ("stopsignal = FOO", "stopsignal = FOO: unknown signal"),
        ("umask = 99", "umask = 99"),
        ("stdout_logfile_maxbytes = 0", "stdout_logfile_maxbytes = 0: everup's logs are always b"),
        (
            "directory = /x/%(process_num)d",
            "directory = /x/%(process_num)d: this key cannot differ",
        ),
        (
            "directory = /x/%(host_node_name)s",
            "directory = /x/%(host_node_name)s: %(host_node_name)s",
        ),
        ("environment = A=1,B", "environment = A=1,B: this part could not be read"),
        ("autorestart = maybe", "autorestart = maybe: expected true or false"),
    ],
)
def test_what_cannot_be_converted_is_told(option: str, lost: str) -> None:
    text = from_supervisord(f"[program:web]\ncommand = a\n{option}\n")
    assert f"# not converted: {lost}" in text
    spec(text)


def test_ports_counted_from_one_are_a_port_too() -> None:
    text = (
        "[program:w]\ncommand=w %(process_num)d 900%(process_num)01d\nnumprocs_start=1\nnumprocs=2"
    )
    service = spec(from_supervisord(text)).service["w"]
    assert (service.command, service.port) == (("w", "{replica}", "{port}"), 9001)


def test_no_ini_file_names_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        from_supervisord("\n[program:web]\ncommand = x\nnonsense\n")
    assert str(caught.value).startswith("supervisord.conf:4: expected [section] headers")
    with pytest.raises(ConfigError, match=r"supervisord.conf:1: expected"):
        from_supervisord("nonsense")
