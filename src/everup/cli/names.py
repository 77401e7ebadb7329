"""The names of all commands, and where each is found: its module is loaded when it is used."""

from typing import Final

from everup import app

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("everup.cli.up:up", "Start everup and keep the services up."),
    "down": ("everup.cli.operate:down", "Stop all services, then everup."),
    "status": ("everup.cli.status:status", "Show what runs, since when, and how it is."),
    "start": ("everup.cli.operate:start", "Start what was stopped."),
    "stop": ("everup.cli.operate:stop", "Stop; it stays stopped until you start it."),
    "restart": ("everup.cli.rollout:restart", "Replace the processes, without a gap."),
    "reload": ("everup.cli.rollout:reload", "Apply the changed config, without a gap."),
    "scale": ("everup.cli.operate:scale", "Change the number of replicas."),
    "signal": ("everup.cli.operate:signal", "Send a signal to the main processes."),
    "logs": ("everup.cli.streams:logs", "Show the output of services."),
    "events": ("everup.cli.streams:events", "Show the journal."),
    "report": ("everup.cli.report:report", "Show how available the services were, and why not."),
    "plan": (
        "everup.cli.plan:plan",
        "Predict how available the services will be, and what to mend.",
    ),
    "check": ("everup.cli.config:check", "Check the config and show what it means."),
    "init": ("everup.cli.config:init", "Write a first everup.toml."),
    "reexec": ("everup.cli.itself:reexec", "Replace everup itself; the services go on."),
    "version": ("everup.cli.config:version", "Show the version."),
    "completion": ("everup.cli.config:completion", "Print the completion script for your shell."),
    **{name: (command.function, command.help) for name, command in app.commands().items()},
}
"""By name: the click command, and one line of help."""
