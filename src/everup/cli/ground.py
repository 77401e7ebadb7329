"""What ``everup up`` makes before anything else: its directories, its lock, its log."""

import fcntl
import os
import time

from everup.adapters import trusted
from everup.adapters.place import Place
from everup.cli.client import keeper_lives
from everup.cli.context import Failure, Here
from everup.cli.screen import echo

LOG_NAME = "everup.log"
_LOCK_S = 2.0
_LOG_BYTES = 5 << 20


def prepare(here: Here) -> Place:
    """Where this everup is to live, made and looked at. ``Failure`` where somebody else could lead
    its files elsewhere, or where another everup of this config runs."""
    place = here.own_place
    running = here.place
    if running.state_dir != place.state_dir and keeper_lives(running):
        who = trusted.user_name(os.stat(running.lock).st_uid)
        raise Failure(
            f"everup runs already for {place.config}, as {who}, with the state directory "
            f"{running.state_dir}",
            "look: everup status; end it first: everup down",
        )
    new = not os.path.isdir(place.state_dir)
    for directory, mode in ((place.state_dir, 0o755), (place.run_dir, 0o755), (place.logs, 0o750)):
        _make(directory, mode)
    if (weak := place.weakness()) is not None:
        raise _refused(weak, place)
    if new and os.path.dirname(place.state_dir) != place.config_dir and here.state_dir is None:
        beside = trusted.weakness(place.config_dir)
        echo(f"others may write beside the config ({beside}):", err=True)
        echo(f"journal and logs are in {place.state_dir}", err=True)
    return place


def _make(directory: str, mode: int) -> None:
    try:
        trusted.make_directory(directory, mode)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except trusted.UntrustedError as error:
        raise _refused(error.weakness) from None
    except (FileExistsError, NotADirectoryError):
        raise Failure(
            f"the state directory {directory} is a file",
            "move it away, or set state_dir in the table [everup]",
        ) from None
    except OSError as error:
        raise Failure(
            f"cannot write to the state directory {directory}: {error.strerror}",
            "mend its permissions, or set state_dir in the table [everup]",
        ) from None


def _refused(weak: trusted.Weakness, place: Place | None = None) -> Failure:
    what = "could write what everup goes by" if place else "could lead everup's files elsewhere"
    return Failure(f"{weak}: {what}; nothing was started", f"mend it: {weak.mend}")


def lock(place: Place) -> int:
    """The descriptor of the locked file, to be inherited. ``Failure`` if another everup has it."""
    try:
        found = trusted.open_file(place.lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        hint = f"remove {place.lock}"
        raise Failure(f"cannot open {place.lock}: {error.strerror}", hint) from None
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            pid = os.pread(found, 32, 0).decode(errors="replace").strip() or "unknown"
            # Of one that was killed, a thread may still be on its way out; and another command
            # may look whether somebody has the lock just now.
            if time.monotonic() > until or os.path.exists(f"/proc/{pid}/exe"):
                raise Failure(
                    f"everup is already running for {place.state_dir} (keeper pid {pid})",
                    "apply a changed config: everup reload; look: everup status; "
                    "stop it: everup down",
                ) from None
            time.sleep(0.01)
    os.set_inheritable(found, True)  # it goes on with the keeper, which this process becomes
    return found


def log(place: Place) -> int:
    """A descriptor of everup's own log. Its few lines a day: one older file is enough."""
    path = os.path.join(place.state_dir, LOG_NAME)
    try:
        if os.path.exists(path) and os.path.getsize(path) > _LOG_BYTES:
            os.replace(path, path + ".1")
        return trusted.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    except OSError as error:
        hint = f"remove {path}"
        raise Failure(f"cannot open {path}: {error.strerror or error}", hint) from None
