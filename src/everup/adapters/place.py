"""Where an everup lives: its config, its state, its sockets."""

import os
from dataclasses import dataclass

from everup.adapters.launch import run_dir


@dataclass(frozen=True, slots=True)
class Place:
    """All paths absolute."""

    config: str
    config_dir: str
    state_dir: str
    run_dir: str

    @classmethod
    def of(cls, config: str, state_dir: str) -> "Place":
        """From the config file's path and its ``everup.state_dir`` as written."""
        config = os.path.abspath(config)
        directory = os.path.dirname(config)
        state = os.path.normpath(os.path.join(directory, state_dir))
        return cls(config, directory, state, run_dir(state))

    @property
    def api_socket(self) -> str:
        return os.path.join(self.run_dir, "api.sock")

    @property
    def notify_socket(self) -> str:
        return os.path.join(self.run_dir, "notify.sock")

    @property
    def journal(self) -> str:
        return os.path.join(self.state_dir, "journal.db")

    @property
    def logs(self) -> str:
        return os.path.join(self.state_dir, "logs")

    @property
    def accepted(self) -> str:
        """Copy of the config text in force."""
        return os.path.join(self.state_dir, "config.accepted.toml")
