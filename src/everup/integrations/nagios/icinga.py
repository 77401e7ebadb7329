"""Icinga 2: what its API is asked to take, what its answers mean, and the objects it needs.

Pure.
"""

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from everup.integrations.nagios.command import MOST_TEXT_CHARS, Result, fields, one_line
from everup.integrations.nagios.command import name as plain_name
from everup.integrations.nagios.objects import SERVICE, STALE, fresh_s

PATH: Final = "/v1/actions/process-check-result"
_MOST_TEXT_BYTES: Final = 16_000


class Outcome(Enum):
    """What became of one result."""

    TAKEN = "taken"
    UNKNOWN = "unknown"
    """Icinga knows no such object."""
    REFUSED = "refused"
    """It does not take this one, and will not when asked again."""
    AGAIN = "again"
    """It is not well, or does not let us in."""


def parameters(result: Result) -> dict[str, str]:
    """Give the object as the query names it."""
    host = plain_name(result.host)
    if not result.service:
        return {"host": host}
    return {"service": f"{host}!{plain_name(result.service)}"}


def body(result: Result, ttl_s: int) -> dict[str, Any]:
    """Give the request. It has no time: Icinga drops, and says that it took, what is older by its
    own clock than its last check."""
    _, _, code, _ = fields(result, _MOST_TEXT_BYTES)
    text = one_line(result.text)[:MOST_TEXT_CHARS]
    return {
        "exit_status": code,
        "plugin_output": text,
        "performance_data": result.perf,
        "check_source": result.host,
        "ttl": ttl_s,
    }


def outcome(status: int, data: bytes) -> tuple[Outcome, str]:
    """Read an answer, whatever is in it: what became of the result, and Icinga's words."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    answer: Mapping[str, Any] = found if isinstance(found, dict) else {}
    results = answer.get("results")
    first = results[0] if isinstance(results, list) and results else {}
    words = first.get("status") if isinstance(first, dict) else None
    words = one_line(str(words or answer.get("status") or f"HTTP status {status}"))[:200]
    if status == 200 and isinstance(first, dict) and first.get("code") == 200:
        return Outcome.TAKEN, words
    # 2.13 answers 404 where a name leads to nothing, and 500 without results where a filter does.
    if (status == 404 and answer.get("error") == 404) or (status == 500 and results == []):
        return Outcome.UNKNOWN, words
    if status in (400, 409, 413, 422):
        return Outcome.REFUSED, words
    return Outcome.AGAIN, words


def objects(
    host: str, services: Mapping[str, Sequence[str]], *, address: str, beat_s: float
) -> str:
    """Write host, services, freshness and dependencies in Icinga's language. ``services`` are names
    with what each depends on."""
    host = plain_name(host)
    fresh = fresh_s(beat_s)
    parts = [
        "// Written by `everup nagios objects --icinga`. Each service is told by everup;\n"
        f"// one that is not told for {fresh} s is checked, and that check says UNKNOWN.",
        _object(
            "Host",
            host,
            {
                "address": _string(plain_name(address)),
                "check_command": '"dummy"',
                "enable_active_checks": "false",
                "vars.dummy_text": _string(f"{host}, kept by everup"),
            },
        ),
    ]
    for service in dict.fromkeys([*services, SERVICE]):
        parts.append(
            _object(
                "Service",
                plain_name(service),
                {
                    "host_name": _string(host),
                    "check_command": '"dummy"',
                    "check_interval": f"{fresh}s",
                    "max_check_attempts": "1",
                    "enable_flapping": "false",
                    "vars.dummy_state": "3",
                    "vars.dummy_text": _string(STALE),
                },
            )
        )
    for service, needs in services.items():
        for needed in needs:
            parts.append(_dependency(host, plain_name(service), plain_name(needed)))
    return "\n\n".join(parts) + "\n"


def _dependency(host: str, service: str, needed: str) -> str:
    return _object(
        "Dependency",
        f"needs-{needed}",
        {
            "parent_host_name": _string(host),
            "parent_service_name": _string(needed),
            "child_host_name": _string(host),
            "child_service_name": _string(service),
            "states": "[ OK, Warning ]",
            "disable_notifications": "true",
        },
    )


def _object(kind: str, name: str, attributes: Mapping[str, str]) -> str:
    lines = [f"  {key} = {value}" for key, value in attributes.items()]
    return "\n".join([f"object {kind} {_string(name)} {{", *lines, "}"])


def _string(text: str) -> str:
    """A string of Icinga's language. ``$`` begins a macro there, and two are one."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{plain.replace("$", "$$")}"'
