"""Commands about the config file, and the small ones."""

import shlex
import sys
from pathlib import Path

import click

from everup import __version__
from everup.cli.context import USAGE, Failure, Here, done, json_option, leave, print_json
from everup.cli.screen import echo, style


def read_config(path: str) -> str:
    """Text of the config; ``Failure`` where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", status=USAGE) from None
    except UnicodeDecodeError as error:
        why = f"it is no UTF-8 text (byte {error.start})"
        raise Failure(f"cannot read {path}: {why}", status=USAGE) from None


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON Schema for editors instead.")
@click.option("-q", "--quiet", is_flag=True, help="Problems and warnings only.")
@click.option(
    "--show-values", is_flag=True, help="Print values of variables and headers, and passwords."
)
@json_option
@click.pass_obj
def check(here: Here, schema: bool, quiet: bool, show_values: bool, as_json: bool) -> None:
    """Check the config and print what it means, defaults included. Exit status 2: not valid.

    Values that may be secrets are masked: of variables and headers all.
    """
    from everup import config
    from everup.adapters.launch import user_exists

    if schema:
        print_json(config.json_schema())
        return
    path = here.config
    report = config.check(
        read_config(path), path=path, directory=str(Path(path).parent), known_users=user_exists
    )
    problems = [str(p) for p in report.problems]
    warnings = [str(w) for w in report.warnings]
    if as_json:
        print_json({"valid": not problems, "problems": problems, "warnings": warnings})
        leave(USAGE if problems else 0)
    for text in warnings:
        echo(f"{style('warning:', fg='yellow')} {text}", err=True)
    if report.spec is None:
        for text in problems:
            echo(f"{style('error:', fg='red', bold=True)} {text}", err=True)
        plural = "problem" if len(problems) == 1 else "problems"
        raise Failure(f"{path} has {len(problems)} {plural}", status=USAGE)
    if not quiet:
        echo(config.explain(report.spec, values=show_values))
    count = len(report.spec.service)
    plural = "service" if count == 1 else "services"
    echo(f"{path} is valid: {count} {plural}  (next: everup up -d)", err=True)


@click.command()
@click.option("--procfile", type=click.Path(exists=True, dir_okay=False), help="Convert this.")
@click.option("--supervisord", type=click.Path(exists=True, dir_okay=False), help="Convert this.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
@click.argument("output", default="everup.toml")
def init(
    procfile: str | None, supervisord: str | None, force: bool, as_json: bool, output: str
) -> None:
    """Write a commented OUTPUT (everup.toml) from a Procfile, a supervisord.conf, or from nothing.

    Without an option: from ./Procfile or ./supervisord.conf where there is one.
    """
    from everup.cli._draft import draft, sum_up

    if procfile is None and supervisord is None:
        if Path("Procfile").is_file():
            procfile = "Procfile"
        elif Path("supervisord.conf").is_file():
            supervisord = "supervisord.conf"
    source = procfile or supervisord or "nothing"
    text, losses = draft(procfile, supervisord, output)
    try:
        with open(output, "w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Failure(f"{output} is there already", "write over it: --force") from None
    except OSError as error:
        raise Failure(f"cannot write {output}: {error.strerror}") from None
    check_it = (
        "everup check" if output == "everup.toml" else f"everup -c {shlex.quote(output)} check"
    )
    told = [{"where": x.where, "what": x.text, "grave": x.grave} for x in losses]
    value = {"file": output, "from": source} | ({"losses": told} if source != "nothing" else {})
    done(as_json, value, f"wrote {output} from {source}", check_it)
    sum_up(losses, output)


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Show the version."""
    python = sys.version.split()[0]
    data = {"everup": __version__, "python": python}
    done(as_json, data, f"everup {__version__} (Python {python})")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@json_option
def completion(shell: str, as_json: bool) -> None:
    """Print the completion script, for example: eval "$(everup completion bash)"."""
    from click.shell_completion import get_completion_class

    from everup.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    source = kind(cli, {}, "everup", "_EVERUP_COMPLETE").source()
    if as_json:
        print_json({"shell": shell, "script": source})
    else:
        echo(source)
