"""Makes in Zabbix what everup needs there, by its API. Done again, it changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations.zabbix.edge.api import Api
from everup.integrations.zabbix.template import NAME, SILENCE, template

_GROUP: Final = "everup"
_BEATS: Final = 3
_SLACK_S: Final = 10
_RULES: Final = (
    "templates",
    "items",
    "discoveryRules",
    "triggers",
    "graphs",
    "templateDashboards",
    "valueMaps",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The host as it should be in Zabbix."""

    host: str
    beat_s: float
    psk_identity: str = ""
    psk: str = ""

    def __repr__(self) -> str:
        return f"Wanted({self.host!r}, {self.beat_s!r})"


def set_up(api: Api, wanted: Wanted) -> Iterator[str]:
    """Import the template and make the host; say what was done, step by step. Raises
    ``ApiError``."""
    new = api.version >= (7, 0)
    api.ask(
        "configuration.import",
        format="yaml",
        rules=_rules(api),
        source=template("7.0" if new else "6.0"),
    )
    yield f"the template {NAME} is there, in the format of Zabbix {'7.0' if new else '6.0'}"
    (found,) = api.ask("template.get", filter={"host": NAME}, output=["templateid"])
    linked = [{"templateid": found["templateid"]}]
    tls: dict[str, Any] = {}
    if wanted.psk:
        tls = {"tls_accept": 2, "tls_psk_identity": wanted.psk_identity, "tls_psk": wanted.psk}
    hosts = api.ask("host.get", filter={"host": wanted.host}, output=["hostid", "tls_accept"])
    if hosts:
        host = hosts[0]["hostid"]
        api.ask("host.massadd", hosts=[{"hostid": host}], templates=linked)
        if tls:
            api.ask("host.update", hostid=host, **tls)
        yield f"the host {wanted.host} has the template"
    else:
        groups = [{"groupid": _group(api)}]
        made = api.ask("host.create", host=wanted.host, groups=groups, templates=linked, **tls)
        host = made["hostids"][0]
        yield f"the host {wanted.host} was made, in the group {_GROUP}"
    silence = f"{round(wanted.beat_s * _BEATS) + _SLACK_S}s"
    _macro(api, host, silence)
    yield f"everup is missed after {silence} ({SILENCE})"
    if wanted.psk:
        yield f"the host takes values with the pre-shared key {wanted.psk_identity!r} alone"


def _rules(api: Api) -> dict[str, Any]:
    groups = "template_groups" if api.version >= (6, 2) else "groups"
    rules: dict[str, Any] = {groups: {"createMissing": True}}
    for name in _RULES:
        rules[name] = {"createMissing": True, "updateExisting": True}
    return rules


def _group(api: Api) -> str:
    found = api.ask("hostgroup.get", filter={"name": _GROUP}, output=["groupid"])
    if found:
        return str(found[0]["groupid"])
    return str(api.ask("hostgroup.create", name=_GROUP)["groupids"][0])


def _macro(api: Api, host: str, value: str) -> None:
    found = api.ask("usermacro.get", hostids=host, filter={"macro": SILENCE}, output="extend")
    if not found:
        api.ask("usermacro.create", hostid=host, macro=SILENCE, value=value)
    elif found[0]["value"] != value:
        api.ask("usermacro.update", hostmacroid=found[0]["hostmacroid"], value=value)
