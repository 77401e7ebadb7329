"""``everup elasticsearch``."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from everup.cli.context import Failure, Here
from everup.cli.screen import echo


@click.group()
def elasticsearch() -> None:
    """Set up Elasticsearch or OpenSearch for what everup ships."""


@elasticsearch.command()
@click.option(
    "--keep",
    "keep_days",
    type=click.IntRange(1, 3650),
    default=90,
    show_default=True,
    help="Days after which the server deletes events.",
)
@click.pass_obj
def setup(here: Here, keep_days: int) -> None:
    """Make the index templates, the lifecycle policy, the data stream and the index.

    It says what it did; doing it again changes nothing. Needs the rights to manage index templates,
    policies and indices.
    """

    async def work(client: Any, table: Any) -> None:
        from everup.integrations.elasticsearch.edge.setup import setup as prepared

        async for line in prepared(client, table, keep_days):
            echo(line)

    _with_client(here, work)


@elasticsearch.command()
@click.pass_obj
def status(here: Here) -> None:
    """Show which server answers, up to where the journal is shipped, and what was refused."""
    from everup.integrations._shipping.commands import folder_of, lag_of
    from everup.integrations.elasticsearch import names

    async def work(client: Any, table: Any) -> None:
        from everup.integrations.elasticsearch.edge.setup import recognise

        to = await recognise(client)
        echo(f"{client.where} is {to.name}")
        for kind in table.ship:
            target = getattr(names, kind)(table.namespace)
            answer = await client.ask("GET", f"/{target}/_count")
            if answer.status == 404:
                echo(f"{kind}: there is no {target} yet; everup elasticsearch setup makes it")
            else:
                found = answer.json()
                count = found.get("count", "?") if isinstance(found, dict) else "?"
                echo(f"{kind}: {count} documents in {target}")

    echo(lag_of(here, "elasticsearch"))
    refused = folder_of(here, "elasticsearch") / "refused.ndjson"
    if refused.exists():
        with refused.open("rb") as file:
            echo(f"refused by the server: {sum(1 for _ in file)}, with the reasons in {refused}")
    _with_client(here, work)


def _with_client(here: Here, work: Callable[[Any, Any], Awaitable[None]]) -> None:
    from everup.integrations._shipping.commands import Files, table_of
    from everup.integrations.elasticsearch.edge.client import Client, UnreachedError
    from everup.integrations.elasticsearch.edge.setup import SetupError

    table = table_of(here, "elasticsearch")
    if not table.urls:
        raise Failure(
            f"{here.config} has no elasticsearch.urls", "add [elasticsearch] urls = [...]"
        )
    files = Files(here)

    async def run() -> None:
        client = Client(table, files.text, files.bytes)
        try:
            await work(client, table)
        finally:
            await client.close()

    try:
        asyncio.run(run())
    except (UnreachedError, SetupError) as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(str(error)) from None
