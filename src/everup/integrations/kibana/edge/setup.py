"""Puts saved objects into Kibana, and takes them out again. Says what it did."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from everup.integrations.elasticsearch import server
from everup.integrations.elasticsearch.config import Elasticsearch
from everup.integrations.elasticsearch.edge.client import Answer, Client
from everup.integrations.kibana import boards, saved
from everup.integrations.kibana.config import Kibana

_HEADERS: Final = {"kbn-xsrf": "everup", "osd-xsrf": "everup"}
_OLDEST: Final = (7, 10)
_BOUNDARY: Final = "everup-saved-objects"


class SetupError(Exception):
    """Kibana refuses; the text says what, and why."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """Which Kibana it is."""

    name: str
    old: bool
    """Kibana 5: its objects are documents of its index."""


def client_of(
    table: Kibana, secret: Callable[[str], str], secret_bytes: Callable[[str], bytes]
) -> Client:
    """Give a client for the table. Raises ``OSError``, ``ValueError``."""
    assert table.url is not None
    space = f"/s/{table.space}" if table.space else ""
    words = Elasticsearch(
        urls=(table.url.rstrip("/") + space,),
        api_key_file=table.api_key_file,
        user=table.user,
        password_file=table.password_file,
        ca_file=table.ca_file,
        fingerprint=table.fingerprint,
        unencrypted=table.unencrypted,
        gzip=False,
    )
    return Client(words, secret, secret_bytes, _HEADERS)


async def recognise(client: Client) -> Flavour:
    """Find out which Kibana it is. Raises ``SetupError``, ``UnreachedError``."""
    answer = await client.ask("GET", "/api/status")
    found = answer.json()
    if not isinstance(found, dict) or "status" not in found:
        told = "what answers there is no Kibana, or is not ready"
        if answer.status != 200:
            told = server.refusal(answer.status, answer.body)
        raise SetupError(f"{client.where}: {told}")
    number = found["version"].get("number") if isinstance(found.get("version"), dict) else None
    if not isinstance(number, str):
        return Flavour("Kibana 5", old=True)
    parts = number.split("-")[0].split(".")
    if not all(part.isdecimal() for part in parts) or len(parts) < 2:
        raise SetupError(f"{client.where}: it says that its version is {number!r}")
    version = (int(parts[0]), int(parts[1]))
    if version[0] < 5:
        return Flavour(f"OpenSearch Dashboards {number}", old=False)
    if version[0] == 5:
        return Flavour(f"Kibana {number}", old=True)
    if version < _OLDEST:
        raise SetupError(f"{client.where}: Kibana {number}: 5.x, or 7.10 and later, is needed")
    return Flavour(f"Kibana {number}", old=False)


async def setup(client: Client, *, overwrite: bool) -> AsyncIterator[str]:
    """Put in what is not there; ``overwrite``: also in place of what is. Gives a line for each
    thing done. Raises ``SetupError``, ``UnreachedError``."""
    flavour = await recognise(client)
    yield f"{client.where} is {flavour.name}"
    put = _put_old if flavour.old else _import
    made, kept = await put(client, overwrite=overwrite)
    yield f"{made} data views, searches, visualizations and dashboards put in"
    if kept:
        yield f"{kept} were there and are kept as they are (--overwrite replaces them)"
    for board in boards.DASHBOARDS:
        yield f"dashboard {saved.PREFIX}{board.name}: {board.title}"


async def remove(client: Client) -> AsyncIterator[str]:
    """Take out what ``setup`` puts in. Raises ``SetupError``, ``UnreachedError``."""
    flavour = await recognise(client)
    yield f"{client.where} is {flavour.name}"
    gone = 0
    if flavour.old:
        paths = [_old_path(each) for each in reversed(saved.legacy())]
    else:
        paths = [
            f"/api/saved_objects/{each['type']}/{quote(each['id'], safe='')}"
            for each in reversed(saved.modern())
        ]
    for path in paths:
        answer = await client.ask("DELETE", path)
        if answer.status not in (200, 404):
            raise _refused(client, answer, path)
        gone += answer.status == 200
    yield f"{gone} of {len(paths)} objects removed"


async def _import(client: Client, *, overwrite: bool) -> tuple[int, int]:
    """Give how many are new, and how many were there."""
    words = "overwrite=true" if overwrite else "overwrite=false"
    body = _multipart(saved.ndjson())
    content = f"multipart/form-data; boundary={_BOUNDARY}"
    answer = await client.ask("POST", f"/api/saved_objects/_import?{words}", body, content)
    found = answer.json()
    if answer.status != 200 or not isinstance(found, dict):
        raise _refused(client, answer, "_import")
    kept = 0
    for error in found.get("errors") or ():
        what = error.get("error", {})
        if what.get("type") != "conflict":
            told = f"{error.get('type')} {error.get('id')}: {json.dumps(what)[:300]}"
            raise SetupError(f"{client.where}: it does not take {told}")
        kept += 1
    return int(found.get("successCount", 0)), kept


async def _put_old(client: Client, *, overwrite: bool) -> tuple[int, int]:
    made = kept = 0
    for each in saved.legacy():
        path = _old_path(each) + ("" if overwrite else "?op_type=create")
        answer = await client.ask("PUT", path, json.dumps(each.source).encode())
        if answer.status == 409:
            kept += 1
        elif answer.status in (200, 201):
            made += 1
        else:
            raise _refused(client, answer, path)
    await _choose_default(client)
    return made, kept


async def _choose_default(client: Client) -> None:
    """Kibana 5 shows nothing at all before an index pattern is its default one."""
    path = "/api/kibana/settings"
    found = (await client.ask("GET", path)).json()
    settings: Any = found.get("settings") if isinstance(found, dict) else None
    if isinstance(settings, dict) and settings.get("defaultIndex", {}).get("userValue"):
        return
    body = json.dumps({"value": saved.pattern("events")}).encode()
    answer = await client.ask("POST", f"{path}/defaultIndex", body)
    if answer.status != 200:
        raise _refused(client, answer, "defaultIndex")


def _old_path(document: saved.Document) -> str:
    return f"/elasticsearch/.kibana/{document.type}/{quote(document.name, safe='')}"


def _multipart(data: bytes) -> bytes:
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="everup.ndjson"\r\n'
        "Content-Type: application/ndjson\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _refused(client: Client, answer: Answer, what: str) -> SetupError:
    found = answer.json()
    told = server.refusal(answer.status, answer.body)
    if isinstance(found, dict) and isinstance(found.get("message"), str):
        told = f"status {answer.status}: {found['message'][:300]}"
    return SetupError(f"{client.where}: {what.partition('?')[0]}: {told}")
