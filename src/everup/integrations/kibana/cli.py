"""``everup kibana``."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import click

from everup.cli.context import Failure, Here
from everup.cli.screen import echo


@click.group()
def kibana() -> None:
    """Put dashboards of what everup ships into Kibana."""


@kibana.command()
@click.option("--overwrite", is_flag=True, help="Also in place of what is there.")
@click.pass_obj
def setup(here: Here, overwrite: bool) -> None:
    """Put data views, searches and dashboards into Kibana or OpenSearch Dashboards.

    What is there is kept as it is, also what somebody has changed.
    """
    from everup.integrations.kibana.edge.setup import setup as put

    _with_client(here, lambda client: put(client, overwrite=overwrite))


@kibana.command()
@click.pass_obj
def remove(here: Here) -> None:
    """Take out of Kibana what setup puts in, as changed as it may be."""
    from everup.integrations.kibana.edge.setup import remove as take_out

    _with_client(here, take_out)


@kibana.command()
def export() -> None:
    """Write the saved objects as NDJSON, to import by hand (Kibana 7.10 or later)."""
    from everup.integrations.kibana.saved import ndjson

    echo(ndjson().decode().rstrip("\n"))


def _with_client(here: Here, work: Callable[[Any], AsyncIterator[str]]) -> None:
    from everup.integrations._shipping.commands import Files, table_of
    from everup.integrations.elasticsearch.edge.client import UnreachedError
    from everup.integrations.kibana.edge.setup import SetupError, client_of

    table = table_of(here, "kibana")
    if table.url is None:
        raise Failure(f"{here.config} has no kibana.url", 'add [kibana] url = "..."')
    files = Files(here)

    async def run() -> None:
        client = client_of(table, files.text, files.bytes)
        try:
            async for line in work(client):
                echo(line)
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
