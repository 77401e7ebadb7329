"""How a process ended, in words: signals, and exit codes as programs use them."""

import re
from typing import Final

_SIGNALS: Final = {
    "SIGSEGV": "it used memory that it has not (a crash in native code)",
    "SIGBUS": "it used memory behind which there is nothing any more (a truncated file?)",
    "SIGILL": "it ran an instruction that this processor does not have",
    "SIGFPE": "it divided by zero in native code",
    "SIGABRT": "it aborted by itself (a failed assertion, or its allocator found damage)",
    "SIGSYS": "it made a system call that a filter forbids",
    "SIGPIPE": "it wrote to a pipe or socket that nobody reads any more",
    "SIGXCPU": "it used up its limit of CPU time",
    "SIGXFSZ": "it used up its limit of file size",
    "SIGKILL": "somebody outside everup killed it (kill -9), or the kernel did",
    "SIGTERM": "somebody outside everup asked it to end (SIGTERM)",
    "SIGINT": "somebody interrupted it (Ctrl-C, SIGINT)",
    "SIGHUP": "its terminal or somebody hung up on it (SIGHUP)",
}
_CODES: Final = {
    2: "it does not accept its arguments (many programs mean that by 2)",
    64: "it was used wrongly (EX_USAGE)",
    65: "its input is wrong (EX_DATAERR)",
    66: "it cannot open its input (EX_NOINPUT)",
    67: "it does not know a user (EX_NOUSER)",
    68: "it does not know a host (EX_NOHOST)",
    69: "what it needs is not available (EX_UNAVAILABLE)",
    70: "it failed inside (EX_SOFTWARE)",
    71: "the operating system failed it (EX_OSERR)",
    72: "a file of the system is missing (EX_OSFILE)",
    73: "it cannot create its output (EX_CANTCREAT)",
    74: "reading or writing failed (EX_IOERR)",
    75: "it failed for now and may be tried again (EX_TEMPFAIL)",
    76: "the other side breaks the protocol (EX_PROTOCOL)",
    77: "it may not do what it has to (EX_NOPERM)",
    78: "its configuration is wrong (EX_CONFIG)",
    126: "a program is there but cannot be run (126)",
    127: "a program, or a library of it, is not there (127)",
}
_NUMBERS: Final = {
    1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
}  # fmt: skip


def signal_words(name: str) -> str:
    """Say what an end by that signal means; "" for one that has no usual meaning."""
    return _SIGNALS.get(re.split(r"[, (]", name)[0], "")


def code_words(code: int) -> str:
    """Say what an exit code usually means; "" for one that each program uses as it likes."""
    if 128 < code < 160 and (name := _NUMBERS.get(code - 128)):
        return f"a process inside it ended by {name}: {_SIGNALS[name]}"
    return _CODES.get(code, "")
