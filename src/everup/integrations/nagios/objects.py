"""Object definitions for Nagios: what it must know to take everup's results, and to miss them.

Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from everup.integrations.nagios.command import name as nagios_name

SERVICE: Final = "everup"
"""The service that tells of everup itself; its freshness is the heartbeat."""
STALE: Final = "everup has told nothing of this in time"
_BEATS: Final = 3
"""So many beats may be missing."""
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def fresh_s(beat_s: float) -> int:
    """Give how long a service may go without being told of, in seconds."""
    return max(5, round(beat_s * _BEATS))


def objects(
    host: str,
    services: Mapping[str, Sequence[str]],
    *,
    address: str,
    beat_s: float,
    contact_groups: Sequence[str] = (),
    plugins: str = "$USER1$",
) -> str:
    """Write host, services, freshness and dependencies. ``services`` are names with what each
    depends on. Without ``contact_groups`` nobody is notified: a contact of its own is written."""
    host = nagios_name(host)
    names = dict.fromkeys([*services, SERVICE])
    whom = (
        {"contact_groups": ",".join(map(nagios_name, contact_groups))}
        if contact_groups
        else {"contacts": "everup-nobody"}
    )
    fresh = fresh_s(beat_s)
    parts = [
        "# Written by `everup nagios objects`. Each service is told by everup, never asked for;\n"
        f"# one that is not told for {fresh} s becomes UNKNOWN. Notifications go to: "
        + (", ".join(contact_groups) if contact_groups else "nobody (see --contact-group)"),
        _object("timeperiod", {"timeperiod_name": "everup-always", "alias": "always"} | _always()),
        _object("command", {"command_name": "everup-up", "command_line": _dummy(plugins, 0, "up")}),
        _object(
            "command",
            {
                "command_name": "everup-stale",
                "command_line": _dummy(plugins, 3, STALE),
            },
        ),
    ]
    if not contact_groups:
        parts.append(_object("contact", _nobody()))
    common = {
        "max_check_attempts": "1",  # everup waits itself before it tells of what is worse
        "check_interval": "1",
        "retry_interval": "1",
        "active_checks_enabled": "0",
        "passive_checks_enabled": "1",
        "check_period": "everup-always",
        "notification_period": "everup-always",
        "notification_interval": "0",
        **whom,
    }
    about = {"host_name": host, "alias": f"{host}, kept by everup", "address": nagios_name(address)}
    parts.append(_object("host", about | {"check_command": "everup-up"} | common))
    for service in names:
        parts.append(
            _object(
                "service",
                {
                    "host_name": host,
                    "service_description": nagios_name(service),
                    "check_command": "everup-stale",
                    "check_freshness": "1",
                    "freshness_threshold": str(fresh),
                    "flap_detection_enabled": "0",
                    **common,
                },
            )
        )
    for service, needs in services.items():
        for needed in needs:
            parts.append(_object("servicedependency", _dependency(host, service, needed)))
    return "\n\n".join(parts) + "\n"


def _dependency(host: str, service: str, needed: str) -> dict[str, str]:
    """Who depends on something that is down alerts nobody: its cause does."""
    return {
        "host_name": host,
        "service_description": nagios_name(needed),
        "dependent_host_name": host,
        "dependent_service_description": nagios_name(service),
        "execution_failure_criteria": "n",
        "notification_failure_criteria": "c,u",
    }


def _object(kind: str, directives: Mapping[str, str]) -> str:
    width = max(map(len, directives))
    lines = [f"  {key:<{width}}  {value}" for key, value in directives.items()]
    return "\n".join([f"define {kind} {{", *lines, "}"])


def _always() -> dict[str, str]:
    return dict.fromkeys(_DAYS, "00:00-24:00")


def _dummy(plugins: str, state: int, text: str) -> str:
    return f'{plugins}/check_dummy {state} "{text}"'


def _nobody() -> dict[str, str]:
    never = {
        f"{kind}_{key}": value
        for kind in ("service", "host")
        for key, value in (
            ("notifications_enabled", "0"),
            ("notification_period", "everup-always"),
            ("notification_commands", "everup-up"),
        )
    }
    return {"contact_name": "everup-nobody"} | never
