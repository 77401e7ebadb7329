"""``everup zabbix``."""

from pathlib import Path

import click

from everup.cli.context import USAGE, Failure, Here
from everup.cli.people import valid_spec
from everup.cli.screen import echo
from everup.integrations.zabbix.template import FORMATS
from everup.integrations.zabbix.template import template as written


@click.group()
def zabbix() -> None:
    """Set Zabbix up for what everup keeps."""


@zabbix.command()
@click.option("--format", "form", type=click.Choice(FORMATS), default="6.0", show_default=True)
def template(form: str) -> None:
    """Write the template as YAML, to import in Zabbix: 6.0 also for 6.2 and 6.4, 7.0 from 7.0 on.

    Link it to a host that is called as everup calls itself there (zabbix.host).
    """
    echo(written("7.0" if form == "7.0" else "6.0").rstrip("\n"))


@zabbix.command()
@click.option("--url", required=True, help="Of Zabbix' frontend: https://zabbix.example/zabbix")
@click.option("--user", help="A user who may import templates and make hosts.")
@click.option("--password-file", type=click.Path(), help="Its first line is the password.")
@click.option("--token-file", type=click.Path(), help="An API token, in place of a user.")
@click.option("--ca-file", type=click.Path(), help="Who signs the frontend's certificate.")
@click.option("--host", metavar="NAME", help="Default: the config's zabbix.host, else this host's.")
@click.pass_obj
def setup(
    here: Here,
    url: str,
    user: str | None,
    password_file: str | None,
    token_file: str | None,
    ca_file: str | None,
    host: str | None,
) -> None:
    """Import the template into Zabbix and make the host, by its API.

    Done again, it changes nothing; after an upgrade of everup, it brings the template up to date.
    """
    import socket

    from everup.integrations.zabbix.edge.api import Api, ApiError
    from everup.integrations.zabbix.edge.setup import Wanted, set_up

    if (user is None) is not (password_file is None) or (user is None) is (token_file is None):
        text = "give --user with --password-file, or --token-file"
        raise Failure(text, "everup zabbix setup --help", USAGE)
    table = valid_spec(here).zabbix
    psk = ""
    if table.psk_file is not None:
        psk = _secret(str(Path(here.config).parent / table.psk_file))
    wanted = Wanted(
        host or table.host or socket.gethostname(), table.heartbeat, table.psk_identity or "", psk
    )
    try:
        ca = None if ca_file is None else _read(ca_file)
        api = Api(url, ca=ca, timeout_s=120.0)
        if token_file is not None:
            api.use(_secret(token_file))
        elif user is not None and password_file is not None:
            api.login(user, _secret(password_file))
        try:
            for line in set_up(api, wanted):
                echo(line)
        finally:
            if token_file is None:
                api.logout()
    except ApiError as error:
        raise Failure(str(error)) from None
    if not table.servers:
        echo(f'now tell everup where the server is, in {here.config}: [zabbix] servers = ["..."]')


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except (OSError, ValueError) as error:
        raise Failure(f"{path}: {getattr(error, 'strerror', None) or error}", "", USAGE) from None


def _secret(path: str) -> str:
    line = _read(path).partition("\n")[0].rstrip("\r")
    if not line:
        raise Failure(f"{path}: its first line is empty, and should hold the secret", "", USAGE)
    return line
