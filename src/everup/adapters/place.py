"""Where an everup lives: its config, its state, its sockets."""

import hashlib
import os
import tempfile
from dataclasses import dataclass

_MAX_SOCKET_PATH = 100  # sun_path holds 108


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

    @property
    def next(self) -> str:
        """Config text that ``everup up`` accepted while instances of an earlier everup go on by
        the old one: to be applied as a reload."""
        return os.path.join(self.state_dir, "config.next.toml")


def run_dir(state_dir: str) -> str:
    """Where the sockets are: the state directory, or a short path where that is too long."""
    if len(state_dir) + len("/notify.sock") <= _MAX_SOCKET_PATH:
        return state_dir
    tag = hashlib.sha256(state_dir.encode()).hexdigest()[:12]
    return os.path.join(tempfile.gettempdir(), f"everup-{os.getuid()}-{tag}")
