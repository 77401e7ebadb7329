"""The command group. Each command's module is loaded when it is used: `status` must be quick."""

import importlib
import os
import sys
from typing import Any

import click

from everup import __version__
from everup.cli.context import INTERRUPTED, Failure, Here
from everup.model.display import shown

_COMMANDS = {
    "up": ("everup.cli.up", "Start everup and keep the services up."),
    "down": ("everup.cli.operate", "Stop all services, then everup."),
    "status": ("everup.cli.status", "Show what runs, since when, and how it is."),
    "start": ("everup.cli.operate", "Start what was stopped."),
    "stop": ("everup.cli.operate", "Stop; it stays stopped until you start it."),
    "restart": ("everup.cli.rollout", "Replace the processes, without a gap."),
    "reload": ("everup.cli.rollout", "Apply the changed config, without a gap."),
    "scale": ("everup.cli.operate", "Change the number of replicas."),
    "signal": ("everup.cli.operate", "Send a signal to the main processes."),
    "logs": ("everup.cli.streams", "Show the output of services."),
    "events": ("everup.cli.streams", "Show the journal."),
    "report": ("everup.cli.report", "Show how available the services were, and why not."),
    "plan": ("everup.cli.plan", "Predict how available the services will be, and what to mend."),
    "check": ("everup.cli.config", "Check the config and show what it means."),
    "init": ("everup.cli.config", "Write a first everup.toml."),
    "reexec": ("everup.cli.itself", "Replace everup itself; the services go on."),
    "version": ("everup.cli.config", "Show the version."),
    "completion": ("everup.cli.config", "Print the completion script for your shell."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _help = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
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
