"""Where an everup lives: its config, its state, its sockets."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from everup.adapters import trusted

STATE = ".everup"
"""The state directory beside the config, where the config names none."""
STORE = "/var/lib/everup"
"""Where root's everup keeps the state of a config that lies where others may write."""
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
        """From the config file's path and a state directory, which may be relative to it."""
        config = os.path.abspath(config)
        directory = os.path.dirname(config)
        state = os.path.normpath(os.path.join(directory, state_dir))
        return cls(config, directory, state, run_dir(state))

    @classmethod
    def own(cls, config: str, state_dir: str | None) -> "Place":
        """Where this user's everup of the config lives: ``everup.state_dir`` as written; where none
        is, beside the config, unless others may write there."""
        place = cls.of(config, state_dir or STATE)
        if state_dir is not None or not _is_weak(place.state_dir):
            return place
        return cls.of(config, _elsewhere(place, os.geteuid()) or STATE)

    @classmethod
    def candidates(cls, config: str, state_dir: str | None) -> Iterator["Place"]:
        """Every place in which an everup of the config may run, this user's first."""
        own = cls.own(config, state_dir)
        yield own
        if state_dir is None:
            place = cls.of(config, STATE)
            with contextlib.suppress(OSError):
                owner = os.stat(place.config).st_uid
                others = (STATE, _elsewhere(place, 0), _elsewhere(place, owner))
                for path in dict.fromkeys(path for path in others if path):
                    other = cls.of(config, path)
                    if other.state_dir != own.state_dir:
                        yield other

    @property
    def api_socket(self) -> str:
        return os.path.join(self.run_dir, "api.sock")

    @property
    def observer_socket(self) -> str:
        """By this one the observer speaks to the engine."""
        return os.path.join(self.run_dir, "observer.sock")

    @property
    def sampler_socket(self) -> str:
        """By this one the sampler speaks to the observer."""
        return os.path.join(self.run_dir, "sampler.sock")

    @property
    def observer(self) -> str:
        """The observer's own directory."""
        return os.path.join(self.state_dir, "observer")

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
    def lock(self) -> str:
        """Locked by the keeper for as long as it lives."""
        return os.path.join(self.state_dir, "lock")

    @property
    def accepted(self) -> str:
        """Copy of the config text in force."""
        return os.path.join(self.state_dir, "config.accepted.toml")

    @property
    def sealed(self) -> str:
        """The same with its checksum (see ``accepted``)."""
        return os.path.join(self.state_dir, "config.accepted.sealed")

    @property
    def next(self) -> str:
        """Config text that ``everup up`` accepted while instances of an earlier everup go on by
        the old one: to be applied as a reload."""
        return os.path.join(self.state_dir, "config.next.toml")

    def clear_sockets(self) -> None:
        """Remove the sockets, and their directory where that is of their own. ``OSError``."""
        own = (self.notify_socket, self.api_socket, self.observer_socket, self.sampler_socket)
        for path in own:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if self.run_dir != self.state_dir:
            with contextlib.suppress(OSError):  # somebody has put something there, or removed it
                os.rmdir(self.run_dir)

    def weakness(self) -> trusted.Weakness | None:
        """What lets somebody else lead this everup's files elsewhere, or put some there."""
        for directory in dict.fromkeys((self.state_dir, self.logs, self.run_dir)):
            weak = trusted.weakness(directory)
            if weak is not None:
                return weak
        return trusted.planted(self.state_dir, _FILES)


_FILES = ("lock", "journal.db", "config.", "history.json", "api.sock", "notify.sock")


def run_dir(state_dir: str) -> str:
    """Where the sockets are: the state directory, or a short path where that is too long, which
    follows from whose the state directory is, so that every command of every user finds it."""
    if len(os.fsencode(state_dir)) + len("/notify.sock") <= _MAX_SOCKET_PATH:
        return state_dir
    try:
        owner = os.stat(state_dir).st_uid
    except OSError:
        owner = os.geteuid()
    tag = hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]
    if owner == 0:
        return f"/run/everup/{tag}"
    if os.path.isdir(f"/run/user/{owner}"):
        return f"/run/user/{owner}/everup/{tag}"
    return f"/tmp/everup-{owner}-{tag}"  # noqa: S108 - made, and looked at, as all directories are


def _is_weak(state_dir: str) -> bool:
    """Whether the state should not lie beside the config. One that is there already, and good, may
    be in a sticky directory."""
    if os.path.lexists(state_dir) and trusted.weakness(state_dir) is None:
        return False
    return trusted.weakness(os.path.dirname(state_dir)) is not None


def _elsewhere(place: Place, uid: int) -> str | None:
    """The state directory of a config that lies where others may write: by the path of the one
    that it would have had, so that no two share it."""
    store = STORE if uid == 0 else _home_store(uid)
    if store is None:
        return None
    directory = os.path.realpath(place.config_dir)
    beside = os.path.join(directory, os.path.basename(place.state_dir))
    tag = hashlib.sha256(os.fsencode(beside)).hexdigest()[:16]
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(directory))[:40].strip("-")
    return os.path.join(store, f"{word}-{tag}" if word else tag)


def _home_store(uid: int) -> str | None:
    import pwd

    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None
    return os.path.join(home, ".local/state/everup") if os.path.isabs(home) else None
