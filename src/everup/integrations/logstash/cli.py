"""``everup logstash``."""

import click

from everup.cli.context import Failure, Here
from everup.cli.screen import echo


@click.group()
def logstash() -> None:
    """Set up Logstash for what everup ships."""


@logstash.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5044, show_default=True)
@click.option(
    "--search",
    "urls",
    multiple=True,
    metavar="URL",
    help="Of Elasticsearch or OpenSearch, for its output. Default: what comes is printed.",
)
@click.option("--opensearch", is_flag=True, help="The output is OpenSearch's.")
@click.pass_obj
def config(here: Here, port: int, urls: tuple[str, ...], opensearch: bool) -> None:
    """Write logstash.conf: a pipeline that takes what everup ships.

    With TLS where the config's [logstash] says so; the paths of certificates are to be filled in.
    """
    from everup.integrations._shipping.commands import table_of
    from everup.integrations.logstash.pipeline import pipeline

    table = table_of(here, "logstash")
    tls = bool(table.hosts) and table.encrypted
    verify = table.cert_file is not None
    echo(pipeline(port, urls, opensearch=opensearch, tls=tls, verify=verify).rstrip("\n"))


@logstash.command()
@click.pass_obj
def status(here: Here) -> None:
    """Show up to where the journal is shipped."""
    from everup.integrations._shipping.commands import lag_of, table_of

    if not table_of(here, "logstash").hosts:
        raise Failure(f"{here.config} has no logstash.hosts", "add [logstash] hosts = [...]")
    echo(lag_of(here, "logstash"))
