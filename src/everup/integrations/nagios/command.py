"""Results for Nagios as it takes them: lines for its command file, files for its spool folder.

Pure. Whatever a name or a text holds, it is one result: nothing in it begins another command.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from everup.integrations.standing import Level
from everup.model.display import shown_line

MOST_LINE_BYTES: Final = 4096
"""PIPE_BUF: what is longer is not written in one piece, and others write between."""
MOST_TEXT_CHARS: Final = 4000
_CUT: Final = "..."
_NOT_IN_NAMES: Final = re.compile(r"""[\x00-\x1f\x7f;|`~!$%^&*'"<>?,()={}\\]""")
_UNITS: Final = {"cpu_percent": "%", "memory_bytes": "B", "restarts": "c"}


@dataclass(frozen=True, slots=True)
class Result:
    """One passive result."""

    host: str
    service: str
    """"": of the host itself."""
    level: Level
    text: str
    at: float
    """When it was found, in seconds since 1970."""
    long: str = ""
    """Further lines."""
    perf: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: a newer result of the same takes its place."""
        return self.host, self.service


def name(text: str) -> str:
    """Give a name as Nagios allows one: what it forbids, or reads as the end of one, becomes
    ``_``."""
    return _NOT_IN_NAMES.sub("_", text).strip() or "_"


def performance(numbers: Mapping[str, float]) -> str:
    """Write performance data. Labels are quoted where that is needed."""
    return " ".join(
        f"{_label(label)}={value:.12g}{_UNITS.get(label, '')}" for label, value in numbers.items()
    )


def _label(text: str) -> str:
    plain = shown_line(text).replace("|", "/").replace("=", "_")
    return plain if re.fullmatch(r"[\w.-]+", plain) else "'" + plain.replace("'", "''") + "'"


def one_line(text: str) -> str:
    """Give a text without what Nagios takes for something else: ``;`` ends a field and ``|`` begins
    performance data, a backslash with a letter becomes a control character."""
    flat = shown_line(text.replace("\t", " ").replace("\n", " "))
    return flat.replace(";", ":").replace("|", "/").replace("\\", "/").strip()


def output(result: Result, most_bytes: int) -> str:
    """Write text, long text and performance data as the output of a plugin would be, on one line
    with ``\\n`` between the lines, cut to ``most_bytes`` of UTF-8. The text comes first: where
    room is short, long text goes, then performance data, then the end of the text."""
    text = _cut(one_line(result.text)[:MOST_TEXT_CHARS], most_bytes)
    perf = f"|{result.perf}" if result.perf else ""
    if len((text + perf).encode()) > most_bytes:
        return text
    room = most_bytes - len((text + perf).encode())
    lines = "".join(f"\\n{one_line(line)}" for line in result.long.splitlines())
    return text + perf + (lines if len(lines.encode()) <= room else "")


def _cut(text: str, most_bytes: int) -> str:
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    return data[: most_bytes - len(_CUT)].decode("utf-8", "ignore") + _CUT


def line(result: Result) -> bytes:
    """Write the command, at most 4 096 bytes with its end of line. Raises ``ValueError``: its names
    leave no room for more."""
    command, host, service, code = _parts(result)
    names = f"{host};{service}" if service else host
    head = f"[{int(result.at)}] {command};{names};{code};"
    return f"{head}{output(result, _room(head, result))}\n".encode()


def fields(result: Result, most_bytes: int) -> tuple[str, str, int, str]:
    """Give host, service, code and output for who writes the line himself; the output has at most
    ``most_bytes``, and fits into a line. Raises ``ValueError`` as above."""
    command, host, service, code = _parts(result)
    head = f"[{int(result.at)}] {command};{host};{service};{code};"
    return host, service, code, output(result, min(most_bytes, _room(head, result)))


def _parts(result: Result) -> tuple[str, str, str, int]:
    host = name(result.host)
    if result.service:
        return "PROCESS_SERVICE_CHECK_RESULT", host, name(result.service), int(result.level)
    # A host is up or down: 0 or 1.
    return "PROCESS_HOST_CHECK_RESULT", host, "", int(result.level is Level.CRITICAL)


def _room(head: str, result: Result) -> int:
    room = MOST_LINE_BYTES - len(head.encode()) - 1
    if room < len(_CUT):
        raise ValueError(f"the names of host and service are too long: {result.key!r:.200}")
    return room


def spool_file(result: Result) -> bytes:
    """Write a file for ``check_result_path``."""
    code = result.level if result.service else int(result.level is Level.CRITICAL)
    stamp = f"{result.at:.6f}"
    lines = ["### Passive Check Result File ###", f"file_time={int(result.at)}", ""]
    lines += [f"host_name={name(result.host)}"]
    if result.service:
        lines += [f"service_description={name(result.service)}"]
    lines += ["check_type=1", "check_options=0", "scheduled_check=0", "latency=0.0"]
    lines += [f"start_time={stamp}", f"finish_time={stamp}", "early_timeout=0", "exited_ok=1"]
    lines += [f"return_code={int(code)}", f"output={output(result, 64 << 10)}", ""]
    return "\n".join(lines).encode()
