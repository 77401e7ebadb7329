"""Signal names of Linux, so that a config means the same on every machine that reads it."""

import re

SIGNALS: dict[str, int] = {
    "SIGHUP": 1,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGILL": 4,
    "SIGTRAP": 5,
    "SIGABRT": 6,
    "SIGBUS": 7,
    "SIGFPE": 8,
    "SIGKILL": 9,
    "SIGUSR1": 10,
    "SIGSEGV": 11,
    "SIGUSR2": 12,
    "SIGPIPE": 13,
    "SIGALRM": 14,
    "SIGTERM": 15,
    "SIGSTKFLT": 16,
    "SIGCHLD": 17,
    "SIGCONT": 18,
    "SIGSTOP": 19,
    "SIGTSTP": 20,
    "SIGTTIN": 21,
    "SIGTTOU": 22,
    "SIGURG": 23,
    "SIGXCPU": 24,
    "SIGXFSZ": 25,
    "SIGVTALRM": 26,
    "SIGPROF": 27,
    "SIGWINCH": 28,
    "SIGIO": 29,
    "SIGPWR": 30,
    "SIGSYS": 31,
    **{f"SIGRTMIN+{i}" if i else "SIGRTMIN": 34 + i for i in range(31)},
}
"""Name to number, on x86 and ARM. Real-time signals as glibc counts them."""

_ALIASES = {"SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO", "SIGCLD": "SIGCHLD", "SIGRTMAX": "SIGRTMIN+30"}
_RTMAX = re.compile(r"SIGRTMAX-([0-9]{1,2})")


def signal_name(text: str) -> str | None:
    """The full name of a signal, ``SIGTERM`` for ``TERM`` or ``sigterm``; None if unknown."""
    name = text.upper()
    if not name.startswith("SIG"):
        name = f"SIG{name}"
    name = _ALIASES.get(name, name)
    if match := _RTMAX.fullmatch(name):
        offset = 30 - int(match[1])
        name = f"SIGRTMIN+{offset}" if offset > 0 else "SIGRTMIN" if offset == 0 else ""
    return name if name in SIGNALS else None
