"""``everup echo``."""

import click

from everup.cli.client import Client
from everup.cli.context import Here, done, json_option


@click.command()
@json_option
@click.pass_obj
def echo(here: Here, as_json: bool) -> None:
    """Show how often the clock has beaten."""
    view = Client(here.place).get("/v1/rooms")["echo"]
    done(as_json, view, f"{view['beats']} beats", "everup events -k echo.rang")
