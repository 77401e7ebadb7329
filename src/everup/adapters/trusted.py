"""Opens and makes what is everup's own, where nobody but root and everup's user could put it.

Who may write into a directory can rename what is in it, or plant a link: then everup, as root,
writes to any file of the machine. So each directory on the way is looked at, by descriptor, from
the root down: its owner, its mode, and the links that lead on. Where a path is good, only root
and everup's user can change what it means, so that it stays good and may be used by name.

Modes are what the caller says, whatever the umask.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_LINKS = 40
_NOBODY = 65534
_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_WRITABLE = "may be written by others"


@dataclass(frozen=True, slots=True)
class Weakness:
    """A place on a path at which somebody else could lead it elsewhere."""

    path: str
    why: str
    mend: str
    """The command that ends it."""
    uid: int
    """Whose it is."""

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


class UntrustedError(OSError):
    """A file or directory of everup's that somebody else could have put there."""

    def __init__(self, weakness: Weakness) -> None:
        super().__init__(f"{weakness}: it is not used")
        self.strerror = str(self.args[0])
        self.weakness = weakness


def weakness(path: str, uid: int | None = None) -> Weakness | None:
    """The first place at which somebody who is neither root nor ``uid`` (None: everup's user) could
    lead the path elsewhere; None: there is none. What does not exist yet is no weakness."""
    walk = _Walk(os.geteuid() if uid is None else uid)
    try:
        return walk.to(path)
    finally:
        walk.close()


def may_be_read(path: str, found: os.stat_result) -> bool:
    """Whether what was opened under that path is a file that whoever leads there may read: a link
    of somebody else's must not have root read to them what is not theirs."""
    walk = _Walk(os.geteuid(), links=True)
    try:
        walk.to(path)
        there = walk.reached()
    except OSError:
        return False
    finally:
        walk.close()
    if walk.lender is None:
        return True
    if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
        return False
    return found.st_uid == walk.lender or bool(found.st_mode & stat.S_IROTH)


def open_parent(path: str) -> int:
    """Open the directory that holds the path's last name, for use by descriptor: nobody leads that
    elsewhere afterwards. A link of somebody else's on the way may lead only to a directory of
    theirs: root must do nothing for them where they could not. Raises ``UntrustedError``,
    ``OSError``."""
    walk = _Walk(os.geteuid(), links=True)
    try:
        above = os.path.dirname(os.path.abspath(path))
        walk.to(above)
        found = walk.reached()
        if walk.missing or not stat.S_ISDIR(found.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), above)
        if walk.lender is not None and found.st_uid != walk.lender:
            why = f"is a link of {user_name(walk.lender)}, to what is not theirs"
            raise UntrustedError(Weakness(walk.lent, why, f"rm {_quoted(walk.lent)}", walk.lender))
        return walk.descriptor()
    finally:
        walk.close()


def make_directory(path: str, mode: int) -> None:
    """Make it, and those above it, with that mode; one that exists lets those through whom the
    mode lets through. Raises ``UntrustedError``, ``OSError``."""
    weak = weakness(path)
    if weak is None and not os.path.isdir(path):
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            make_directory(above, 0o755)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chmod(path, mode)
        weak = weakness(path)
    if weak is not None:
        raise UntrustedError(weak)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        needed = mode & 0o711
        if needed & ~found.st_mode and found.st_uid == os.geteuid():
            os.fchmod(directory, stat.S_IMODE(found.st_mode) | needed)
    finally:
        os.close(directory)


def open_file(path: str, flags: int, mode: int = 0o600) -> int:
    """Open a regular file of everup's in a good directory: never through a link, never one of
    somebody else. One that is made has that mode, and so has one that others could write. Raises
    ``UntrustedError``, ``OSError``."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    made = False
    try:
        descriptor = os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
        try:
            descriptor = os.open(path, flags | os.O_EXCL, mode)
            made = True
        except FileExistsError:  # somebody else has just made it
            descriptor = os.open(path, flags & ~(os.O_CREAT | os.O_TRUNC))
    try:
        found = os.fstat(descriptor)
        weak = _weak_file(path, found)
        if weak is not None:
            raise UntrustedError(weak)
        if made or (found.st_mode & _OTHERS_WRITE and found.st_uid == os.geteuid()):
            os.fchmod(descriptor, mode)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """Replace a file, whole or not at all, and on the disk. ``UntrustedError``, ``OSError``."""
    fresh = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    try:
        with open(open_file(fresh, os.O_WRONLY | os.O_CREAT, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def bind(sock: socket.socket, path: str, mode: int) -> None:
    """Bind a Unix socket that has its mode from its first moment on: a change by name afterwards
    would be one of whatever has that name by then."""
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def planted(directory: str, names: tuple[str, ...]) -> Weakness | None:
    """Of the files whose names begin like that, the first that others could write, or lead
    elsewhere: it may be from a time when they could write there."""
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        paths = sorted(entry.path for entry in entries if entry.name.startswith(names))
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                weak = _planted(path, os.lstat(path))
                if weak is not None:
                    return weak
    return None


def _planted(path: str, found: os.stat_result) -> Weakness | None:
    if stat.S_ISDIR(found.st_mode):
        return None
    if stat.S_ISLNK(found.st_mode) and found.st_uid in (0, os.geteuid()):
        # A journal may have been moved to another disk; what matters is where it leads.
        weak, found = weakness(path), os.stat(path)
    else:
        weak = _weak_file(path, found, sockets=True)
    if weak is None and stat.S_ISREG(found.st_mode) and _others_write(found, os.geteuid()):
        weak = Weakness(path, _WRITABLE, f"rm {_quoted(path)}", found.st_uid)
    return weak


@contextlib.contextmanager
def as_owner(weak: Weakness | None) -> Iterator[None]:
    """For root, who looks at what others may change: with no more rights than they have."""
    if weak is None or os.geteuid() != 0:
        yield
        return
    import pwd

    uid, gid, before, groups = weak.uid or _NOBODY, _NOBODY, os.getegid(), os.getgroups()
    with contextlib.suppress(KeyError):
        gid = pwd.getpwuid(uid).pw_gid
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(before)
        os.setgroups(groups)


def user_name(uid: int) -> str:
    """For people."""
    import pwd

    with contextlib.suppress(KeyError):
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    return f"uid {uid}"


def _weak_file(path: str, found: os.stat_result, *, sockets: bool = False) -> Weakness | None:
    regular = stat.S_ISREG(found.st_mode) or (sockets and stat.S_ISSOCK(found.st_mode))
    if not regular:
        what = "is a link" if stat.S_ISLNK(found.st_mode) else "is no regular file"
        return Weakness(path, what, f"rm {_quoted(path)}", found.st_uid)
    if found.st_uid not in (0, os.geteuid()):
        who = f"belongs to {user_name(found.st_uid)}"
        return Weakness(path, who, f"rm {_quoted(path)}", found.st_uid)
    return None


class _Walk:
    """From the root to a path, one component after the other, each opened in the one before."""

    def __init__(self, uid: int, *, links: bool = False) -> None:
        """``links``: look at nothing else, and go on after one of somebody else's."""
        self._uid = uid
        self._links_alone = links
        self.lender: int | None = None
        """Whose the first link of somebody else's was."""
        self.lent = ""
        """Its path."""
        self.missing = False
        """Whether there was no way on before the path's end."""
        self._trusted = {0, uid} | _unmapped()
        self._at = "/"
        self._fd = os.open("/", _WALK | os.O_DIRECTORY)
        self._links = 0

    def close(self) -> None:
        os.close(self._fd)

    def reached(self) -> os.stat_result:
        return os.fstat(self._fd)

    def descriptor(self) -> int:
        """Of what was reached, the caller's to close."""
        return fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 0)

    def to(self, path: str) -> Weakness | None:
        parts = deque(os.path.abspath(path).split("/"))
        weak = self._directory(shared=bool(parts))
        while parts and weak is None:
            name = parts.popleft()
            if name in ("", "."):
                continue
            try:
                child = os.open(name, _WALK, dir_fd=self._fd)
            except (FileNotFoundError, NotADirectoryError):
                self.missing = True
                return None  # who makes it looks again: a sticky directory keeps it
            if stat.S_ISLNK(os.fstat(child).st_mode):
                weak = self._follow(child, name, parts)
                continue
            os.close(self._fd)
            self._fd = child
            self._at = os.path.normpath(os.path.join(self._at, name))
            weak = self._directory(shared=any(part not in ("", ".") for part in parts))
        return weak

    def _follow(self, link: int, name: str, parts: deque[str]) -> Weakness | None:
        """In a directory that everybody may write to it must be one of ours."""
        try:
            path, uid = os.path.join(self._at, name), os.fstat(link).st_uid
            if uid not in self._trusted and self._links_alone:
                if self.lender is None:
                    self.lender, self.lent = uid, path
            elif uid not in self._trusted:
                why = f"is a link of {user_name(uid)}"
                return Weakness(path, why, f"rm {_quoted(path)}", uid)
            self._links += 1
            if self._links > _MAX_LINKS:
                raise OSError(f"too many links on the way to {path}")
            target = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        parts.extendleft(reversed(target.split("/")))
        if target.startswith("/"):
            os.close(self._fd)
            self._at, self._fd = "/", os.open("/", _WALK | os.O_DIRECTORY)
        return None

    def _directory(self, *, shared: bool) -> Weakness | None:
        """Whether others may change what is in the directory that was reached. ``shared``: a
        sticky one will do, for what it holds is looked at next."""
        found = os.fstat(self._fd)
        path, uid = self._at, found.st_uid
        if self._links_alone:
            return None
        if uid not in self._trusted:
            mend = f"chown {self._name()} {_quoted(path)}"
            return Weakness(path, f"belongs to {user_name(uid)}", mend, uid)
        if not stat.S_ISDIR(found.st_mode):
            return None
        if _others_write(found, self._uid) and not (shared and found.st_mode & stat.S_ISVTX):
            mend = f"chmod go-w {_quoted(path)}"
            return Weakness(path, _WRITABLE, mend, uid)
        return None

    def _name(self) -> str:
        return "root" if self._uid == 0 else user_name(self._uid).partition(" ")[0]


def _others_write(found: os.stat_result, uid: int) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, uid)


def _is_private(gid: int, uid: int) -> bool:
    """Whether a group is root's, or the user's own with nobody else in it, as many systems make
    one for each user, with a umask that lets it write."""
    if gid == 0:
        return True
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(uid).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def _unmapped() -> set[int]:
    """In a user namespace, whoever is outside of it: they made it, and nobody in it is they."""
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/uid_map") as file:
            spans = [tuple(map(int, line.split())) for line in file]
        if sum(span[2] for span in spans) < 1 << 16:
            with open("/proc/sys/kernel/overflowuid") as file:
                overflow = int(file.read())
            if not any(first <= overflow < first + count for first, _, count in spans):
                return {overflow}
    return set()


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
