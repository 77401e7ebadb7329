"""What is said of common commands: shells in between, daemons that go into the background."""

import pytest

from everup.config import check


def warnings(command: list[str], more: str = "") -> str:
    words = ", ".join(f"'{word}'" for word in command)
    report = check(f"[service.web]\ncommand = [{words}]\n{more}", path="x", directory="/")
    return "".join(map(str, report.warnings))


@pytest.mark.parametrize(
    ("command", "switch"),
    [
        (["nginx"], "daemon off;"),
        (["/usr/sbin/nginx", "-c", "x"], "daemon off;"),
        (["php-fpm8.2"], "--nodaemonize"),
        (["redis-server", "--daemonize", "yes"], "--daemonize yes"),
        (["memcached", "-d", "-m", "64"], '"-d" out'),
        (["postfix", "start"], "start-fg"),
        (["haproxy", "-f", "x", "-D"], '"-W"'),
        (["sshd"], '"-D"'),
        (["apache2ctl", "start"], "-DFOREGROUND"),
    ],
    ids=" ".join,
)
def test_a_daemon_is_told_what_keeps_it_in_the_foreground(command: list[str], switch: str) -> None:
    said = warnings(command)
    assert "goes into the background" in said
    assert switch in said


@pytest.mark.parametrize(
    "command",
    [
        ["nginx", "-g", "daemon off;"],
        ["php-fpm", "-F"],
        ["redis-server", "x.conf"],
        ["memcached", "-m", "64"],
        ["postfix", "start-fg"],
        ["haproxy", "-W", "-f", "x"],
        ["/usr/sbin/sshd", "-D", "-e"],
        ["apache2", "-DFOREGROUND"],
        ["python3", "-d"],
    ],
    ids=" ".join,
)
def test_what_stays_in_the_foreground_is_left_alone(command: list[str]) -> None:
    assert "background" not in warnings(command)


@pytest.mark.parametrize(
    ("command", "warned"),
    [
        (["sh", "-c", "a; b"], True),
        (["/bin/bash", "-ec", "a"], True),
        (["env", "A=1", "sh", "-c", "a; b"], True),
        (["sh", "-c", "a; exec b"], False),
        (["sh", "-c", "if a; then exec b; fi"], False),
        (["sh", "script"], False),
        (["python3", "-c", "a"], False),
    ],
    ids=str,
)
def test_a_shell_that_stays_in_between(command: list[str], warned: bool) -> None:
    assert ("write exec" in warnings(command)) is warned
    assert "write exec" not in warnings(command, 'stop_scope = "all"')
    assert "write exec" not in warnings(command, 'type = "oneshot"')
