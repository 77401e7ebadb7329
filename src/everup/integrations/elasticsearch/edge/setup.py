"""Prepares a server for what everup ships, and says what it did. Doing it again changes nothing."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from everup.integrations.elasticsearch import names, server, templates
from everup.integrations.elasticsearch.config import Elasticsearch
from everup.integrations.elasticsearch.edge.client import Answer, Client
from everup.integrations.elasticsearch.server import Dialect


class SetupError(Exception):
    """The server refuses; the text says what, and why."""


async def recognise(client: Client) -> Dialect:
    """Find out which server it is. Raises ``SetupError``, ``UnreachedError``."""
    answer = await client.ask("GET", "/")
    if answer.status != 200:
        raise SetupError(f"{client.where}: {server.refusal(answer.status, answer.body)}")
    try:
        return server.dialect(answer.json())
    except ValueError as error:
        raise SetupError(f"{client.where}: {error}") from error


async def setup(client: Client, table: Elasticsearch, keep_days: int) -> AsyncIterator[str]:
    """Prepare all, and give a line for each thing that was done or found done.

    Raises ``SetupError``, ``UnreachedError``.
    """
    to = await recognise(client)
    yield f"{client.where} is {to.name}"
    streams = await _has(client, "GET", "/_data_stream")
    space = table.namespace
    policy = False
    async for line, known in _policy(client, to, space, keep_days):
        policy = known
        yield line
    if "events" in table.ship:
        body = templates.events(to, space, streams=streams, policy=policy)
        yield await _template(client, to, f"{templates.EVENTS}-{space}", body)
        yield await _events(client, to, names.events(space), streams=streams)
    if "incidents" in table.ship:
        body = templates.incidents(to, space)
        yield await _template(client, to, f"{templates.INCIDENTS}-{space}", body)
        target = names.incidents(space)
        yield await _made(client, f"index {target}", f"/{quote(target)}", None)


async def _policy(
    client: Client, to: Dialect, space: str, keep_days: int
) -> AsyncIterator[tuple[str, bool]]:
    body: dict[str, Any]
    if to.opensearch:
        base, body = "/_plugins/_ism/policies", templates.ism(space, keep_days)
        name = f"{templates.POLICY}-{space}"
    else:
        base, body, name = "/_ilm/policy", templates.ilm(keep_days), templates.POLICY
    kind = "ISM" if to.opensearch else "ILM"
    if not await _has(client, "GET", base):
        yield f"no {kind} here: old events are not deleted by the server", False
        return
    path = f"{base}/{name}"
    there = await client.ask("GET", path)
    if there.status == 200:
        if _same(body, there.json(), name):
            yield f"{kind} policy {name}: as it should be", True
            return
        if to.opensearch:
            found = there.json()
            path += f"?if_seq_no={found['_seq_no']}&if_primary_term={found['_primary_term']}"
    await _do(client, "PUT", path, body)
    yield f"{kind} policy {name}: {'changed' if there.status == 200 else 'made'}", True


async def _template(client: Client, to: Dialect, name: str, body: Mapping[str, Any]) -> str:
    base = "/_index_template" if to.composable else "/_template"
    there = await client.ask("GET", f"{base}/{name}")
    if there.status == 200:
        version = _version(there, name)
        if version is not None and version > templates.VERSION:
            return f"index template {name}: kept, it is of a later everup"
        if _same(body, there.json(), name):
            return f"index template {name}: as it should be"
    await _do(client, "PUT", f"{base}/{name}", body)
    return f"index template {name}: {'changed' if there.status == 200 else 'made'}"


async def _events(client: Client, to: Dialect, target: str, *, streams: bool) -> str:
    there = await client.ask("GET", f"/{quote(target)}")
    if there.status == 200:
        return _found(there, target, streams=streams)
    if streams:
        await _do(client, "PUT", f"/_data_stream/{quote(target)}", None)
        return f"data stream {target}: made"
    # With it, the alias keeps the older indices when the server rolls over.
    alias = {"is_write_index": True} if to.version >= (6, 4) else {}
    aliases: dict[str, Any] = {"aliases": {target: alias}}
    await _do(client, "PUT", f"/{quote(target)}-000001", aliases)
    return f"index {target}-000001 behind the alias {target}: made"


def _found(there: Answer, target: str, *, streams: bool) -> str:
    indices = list(there.json())
    if indices == [target]:
        raise SetupError(
            f"{target} is a plain index, made before setup: its fields have other types; "
            "delete it (DELETE /" + target + "), or choose another elasticsearch.namespace"
        )
    kind = "data stream" if streams else "alias"
    return f"{kind} {target}: there, of {len(indices)} indices"


async def _made(client: Client, what: str, path: str, body: Mapping[str, Any] | None) -> str:
    if (await client.ask("HEAD", path)).status == 200:
        return f"{what}: there"
    await _do(client, "PUT", path, body)
    return f"{what}: made"


async def _has(client: Client, method: str, path: str) -> bool:
    """Whether the server knows such a request. Raises ``SetupError`` where it does not say."""
    answer = await client.ask(method, path)
    if answer.status in (401, 403):
        raise SetupError(f"{client.where}: {server.refusal(answer.status, answer.body)}")
    return answer.status == 200


async def _do(client: Client, method: str, path: str, body: Mapping[str, Any] | None) -> None:
    data = None if body is None else json.dumps(body).encode()
    answer = await client.ask(method, path, data)
    if answer.status not in (200, 201):
        told = server.refusal(answer.status, answer.body)
        raise SetupError(f"{client.where}: {method} {path.split('?')[0]}: {told}")


def _version(there: Answer, name: str) -> int | None:
    found = _own(there.json(), name).get("version")
    return found if isinstance(found, int) else None


def _own(found: Any, name: str) -> Mapping[str, Any]:
    """What the server has of that name, out of what it wraps it in."""
    if isinstance(found, dict) and isinstance(found.get("index_templates"), list):
        for each in found["index_templates"]:
            if each.get("name") == name and isinstance(each.get("index_template"), dict):
                return dict(each["index_template"])
        return {}
    if isinstance(found, dict):
        inner = found.get(name, found)
        return inner if isinstance(inner, dict) else {}
    return {}


def _same(wanted: Any, found: Any, name: str) -> bool:
    """Whether all that is wanted is there already; servers add words of their own."""
    return _within(_plain(wanted), _plain(_own(found, name)))


def _within(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return not wanted and found is None
        return all(_within(value, found.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_within, wanted, found))
    return bool(str(wanted).lower() == str(found).lower())


def _plain(value: Any) -> Any:
    """Settings with dots as the server gives them back: nested, and every number as text."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, part in value.items():
        if "." in key:
            head, _, rest = key.partition(".")
            nested = _plain({rest: part})
            old = out.get(head)
            out[head] = {**old, **nested} if isinstance(old, dict) else nested
        else:
            out[key] = _plain(part)
    return out
