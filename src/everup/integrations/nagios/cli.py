"""``everup nagios``."""

import click

from everup.cli.context import Here
from everup.cli.people import valid_spec
from everup.cli.screen import echo


@click.group()
def nagios() -> None:
    """Set Nagios up for what everup keeps."""


@nagios.command()
@click.option("--host", metavar="NAME", help="Default: the config's nagios.host, else this host's.")
@click.option("--address", default="127.0.0.1", show_default=True, help="The host's address.")
@click.option("--contact-group", "groups", multiple=True, help="Who is notified. Default: nobody.")
@click.option("--plugins", default="$USER1$", show_default=True, help="Folder of the plugins.")
@click.option("--icinga", is_flag=True, help="Write them for Icinga 2.")
@click.pass_obj
def objects(
    here: Here,
    host: str | None,
    address: str,
    groups: tuple[str, ...],
    plugins: str,
    icinga: bool,
) -> None:
    """Write Nagios' object definitions: the host, its services, freshness, dependencies.

    Put them into a file below Nagios' cfg_dir and reload Nagios; again when services are added.
    """
    import socket

    from everup.integrations.nagios.objects import objects as written

    spec = valid_spec(here)
    services = {name: service.depends_on for name, service in spec.service.items()}
    table = spec.nagios
    name = host or table.host or socket.gethostname()
    if icinga:
        from everup.integrations.nagios.icinga import objects as for_icinga

        text = for_icinga(name, services, address=address, beat_s=table.heartbeat)
        echo(text.rstrip("\n"))
        return
    text = written(
        name,
        services,
        address=address,
        beat_s=table.heartbeat,
        contact_groups=groups,
        plugins=plugins,
    )
    echo(text.rstrip("\n"))
