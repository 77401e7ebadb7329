"""The command group. Each command's module is loaded when it is used: `status` must be quick."""

import os
import sys
from typing import Any

import click

from everup import __version__
from everup.cli.context import INTERRUPTED, Failure, Here
from everup.cli.names import COMMANDS
from everup.kernel.manifest import load
from everup.model.display import shown


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = load(COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise click.UsageError(error.message + hint, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error)["message"] = shown(error.message)  # what was typed, or pasted, is in it
            raise
        except Failure as failure:
            failure.show()
            ctx.exit(failure.status)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # `| head` has seen enough; the flush at the end must not complain either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    envvar="EVERUP_CONFIG",
    help="Config file. Default: everup.toml here or in a directory above, "
    "else /etc/everup/everup.toml.",
)
@click.version_option(__version__, prog_name="everup")
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Keep network services serving.

    Exit status: 0 done; 1 it failed; 2 the command or the config is wrong; 3 everup is not
    running; 4 not everything is as it should be (status, up and waiting commands).
    """
    ctx.obj = Here(config)
