"""What is known of common commands: shells that stay in between, daemons that leave."""

import re

from everup.config._problem import Findings, Path
from everup.model.spec import Service

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox"})
_EXEC = re.compile(r"(?:^|[;&|(\n{])\s*(?:(?:then|else|do)\s+)?exec\s")


_FOREGROUND: dict[str, tuple[str, str]] = {
    "nginx": (r"daemon\s+off|-[tTvV]", 'add "-g", "daemon off;"'),
    "apache2": (r"FOREGROUND|-X", 'add "-DFOREGROUND"'),
    "httpd": (r"FOREGROUND|-X|-f\b", 'add "-DFOREGROUND"'),
    "apachectl": (r"FOREGROUND|-X", 'add "-DFOREGROUND"'),
    "apache2ctl": (r"FOREGROUND|-X", 'add "-DFOREGROUND"'),
    "php-fpm": (r"-F\b|--nodaemonize", 'add "--nodaemonize"'),
    "postfix": (r"start-fg", 'use "start-fg"'),
    "sshd": (r"-[a-zA-Z]*[Ddti]", 'add "-D"'),
    "dnsmasq": (r"-k\b|-d\b|--keep-in-foreground|--no-daemon", 'add "--keep-in-foreground"'),
    "cron": (r"-f\b", 'add "-f"'),
    "crond": (r"-[nfd]\b", 'add "-n" (BusyBox: "-f")'),
    "rsyslogd": (r"-n\b", 'add "-n"'),
    "named": (r"-[fg]\b", 'add "-f"'),
    "unbound": (r"-[a-z]*d", 'add "-d"'),
    "squid": (r"-N\b|--foreground", 'add "--foreground"'),
    "lighttpd": (r"-D\b", 'add "-D"'),
    "varnishd": (r"-F\b|-d\b", 'add "-F"'),
    "smbd": (r"-F\b|--foreground|-i\b", 'add "--foreground"'),
    "nmbd": (r"-F\b|--foreground|-i\b", 'add "--foreground"'),
    "slapd": (r"-d\b", 'add "-d", "0"'),
    "ntpd": (r"-n\b|-d\b", 'add "-n"'),
    "chronyd": (r"-[nd]\b", 'add "-n"'),
    "keepalived": (r"-n\b|--dont-fork", 'add "--dont-fork"'),
    "proftpd": (r"-n\b|--nodaemon", 'add "--nodaemon"'),
    "dovecot": (r"-F\b", 'add "-F"'),
    "exim": (r"-bdf", 'use "-bdf"'),
    "exim4": (r"-bdf", 'use "-bdf"'),
    "supervisord": (r"-n\b|--nodaemon", 'add "--nodaemon"'),
}
"""Go into the background unless their arguments have this; and what to do."""
_BACKGROUND: dict[str, tuple[str, str]] = {
    "redis-server": (r"--daemonize\s+yes", 'leave "--daemonize yes" out'),
    "valkey-server": (r"--daemonize\s+yes", 'leave "--daemonize yes" out'),
    "memcached": (r"(?:^|\s)-d\b|--daemon", 'leave "-d" out'),
    "haproxy": (r"(?:^|\s)-D\b", 'leave "-D" out, and add "-W"'),
    "gunicorn": (r"(?:^|\s)-D\b|--daemon\b", 'leave "--daemon" out'),
    "uwsgi": (r"--daemonize2?\b|(?:^|\s)-d\b", 'leave "--daemonize" out'),
    "mongod": (r"--fork\b", 'leave "--fork" out'),
    "celery": (r"(?:^|\s)multi\b|--detach\b", 'use "worker" in the foreground'),
    "caddy": (r"^start\b", 'use "run"'),
    "pg_ctl": (r"\bstart\b", 'run "postgres" itself'),
    "pm2": (r"^start\b", 'use "pm2-runtime"'),
}
"""Go into the background if their arguments have this; and what to do."""


def check_command(service: Service, path: Path, found: Findings) -> None:
    """Warn of what does not stay under watch, or will not do what is meant at a stop."""
    if (switch := foreground(service.command)) and service.type != "oneshot":
        found.warn(
            (*path, "command"),
            f"{service.command[0]} goes into the background and leaves everup nobody to watch (it "
            f"would be started again and again); {switch}",
        )
    script = _script(service.command)
    if script is None or service.type == "oneshot" or service.stop_scope == "all":
        return
    if not _EXEC.search(script):
        found.warn(
            (*path, "command"),
            "this shell stays between everup and the program, takes the stop signal for it and may "
            'not pass it on; write exec before the last command, or set stop_scope = "all"',
        )


def foreground(command: tuple[str, ...]) -> str | None:
    """What keeps a usual daemon in the foreground, where the command lacks that."""
    name, rest = command[0].rpartition("/")[2], " ".join(command[1:])
    name = re.sub(r"^php-fpm[0-9.]+$", "php-fpm", name)
    if (known := _FOREGROUND.get(name)) and not re.search(known[0], rest):
        return known[1]
    if (known := _BACKGROUND.get(name)) and re.search(known[0], rest):
        return known[1]
    return None


def _script(command: tuple[str, ...]) -> str | None:
    """What a shell is to run, if the command is one with ``-c``."""
    words = [command[0].rpartition("/")[2], *command[1:]]
    if words[0] == "env":  # env NAME=value sh -c ...
        rest = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        words = words[words.index(rest[0]) :] if rest else words
        words[0] = words[0].rpartition("/")[2]
    if words[0] == "busybox":
        words = words[1:] or words
    if words[0] not in _SHELLS:
        return None
    for at, word in enumerate(words[1:], 1):
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", word):
            return words[at + 1] if at + 1 < len(words) else None
        if not word.startswith(("-", "+")):
            return None
    return None
