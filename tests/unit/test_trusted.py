"""Whose files everup takes for its own, and what it makes."""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from everup.adapters import binding, named, trusted
from everup.adapters import place as places
from everup.adapters.place import Place, run_dir
from everup.adapters.trusted import UntrustedError, weakness
from everup.config import Address
from everup.model.spec import Listener

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root")


@pytest.fixture
def ground() -> Iterator[Path]:
    """A directory that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="everup-trusted-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(params=[0o000, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_only_root_and_this_user_may_write_is_good(ground: Path) -> None:
    (ground / "a" / "b").mkdir(parents=True)
    assert weakness(str(ground / "a" / "b")) is None
    assert weakness(str(ground / "a" / "missing" / "deeper")) is None


@needs_root
def test_a_directory_of_another_user_on_the_way(ground: Path) -> None:
    (ground / "theirs" / "state").mkdir(parents=True)
    os.chown(ground / "theirs", NOBODY, -1)
    weak = weakness(str(ground / "theirs" / "state"))
    assert weak is not None
    assert (weak.path, weak.mend) == (f"{ground}/theirs", f"chown root {ground}/theirs")
    assert f"uid {NOBODY}" in str(weak)
    assert weakness(str(ground / "theirs" / "missing")) is not None
    assert weakness(str(ground / "theirs" / "state"), NOBODY) is None


@pytest.mark.parametrize("bits", [0o777, 0o757])
def test_a_directory_that_others_may_write(ground: Path, bits: int) -> None:
    (ground / "open" / "state").mkdir(parents=True)
    (ground / "open").chmod(bits)
    weak = weakness(str(ground / "open" / "state"))
    assert weak is not None
    assert weak.mend == f"chmod go-w {ground}/open"


@needs_root
def test_a_directory_that_a_group_may_write(ground: Path) -> None:
    ground.chmod(0o775)
    assert weakness(str(ground)) is None  # root's own group
    os.chown(ground, 0, NOBODY)
    ground.chmod(0o775)  # chown may have taken bits away
    assert weakness(str(ground)) is not None


@needs_root
def test_a_sticky_directory_keeps_what_is_ours(ground: Path) -> None:
    ground.chmod(0o1777)
    (ground / "ours").mkdir()
    (ground / "theirs").mkdir()
    os.chown(ground / "theirs", NOBODY, -1)
    assert weakness(str(ground / "ours")) is None
    assert weakness(str(ground / "theirs")) is not None
    assert weakness(str(ground)) is not None  # the last one has to be ours alone
    (ground / "link").symlink_to(ground / "ours")
    assert weakness(str(ground / "link")) is None
    os.chown(ground / "link", NOBODY, -1, follow_symlinks=False)
    weak = weakness(str(ground / "link" / "deeper"))
    assert weak is not None
    assert weak.path == f"{ground}/link"


@needs_root
def test_links_are_followed_and_where_they_lead_is_looked_at(ground: Path) -> None:
    (ground / "real").mkdir()
    (ground / "relative").symlink_to("./real/../real")
    (ground / "absolute").symlink_to(ground / "real")
    assert weakness(str(ground / "relative")) is weakness(str(ground / "absolute")) is None
    os.chown(ground / "real", NOBODY, -1)
    for name in ("relative", "absolute"):
        weak = weakness(str(ground / name))
        assert weak is not None
        assert weak.path == f"{ground}/real"
    (ground / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="too many links"):
        weakness(str(ground / "loop"))


@pytest.mark.usefixtures("umask")
def test_what_is_made_has_its_mode_whatever_the_umask(ground: Path) -> None:
    trusted.make_directory(str(ground / "a" / "b"), 0o755)
    assert (mode(ground / "a"), mode(ground / "a" / "b")) == (0o755, 0o755)
    os.close(trusted.open_file(str(ground / "file"), os.O_WRONLY | os.O_CREAT, 0o640))
    assert mode(ground / "file") == 0o640
    trusted.write_file(str(ground / "text"), "x")
    assert mode(ground / "text") == 0o600
    for bits in (0o666, 0o600, 0o660):
        with socket.socket(socket.AF_UNIX) as sock:
            trusted.bind(sock, str(ground / f"{bits:o}.sock"), bits)
        assert mode(ground / f"{bits:o}.sock") == bits


def test_a_directory_of_a_narrow_umask_lets_others_through_again(ground: Path) -> None:
    (ground / "state").mkdir(0o700)
    trusted.make_directory(str(ground / "state"), 0o755)
    assert mode(ground / "state") == 0o711


def test_a_file_that_others_could_write_is_narrowed(ground: Path) -> None:
    path = ground / "everup.log"
    path.write_text("")
    path.chmod(0o666)
    os.close(trusted.open_file(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
    assert mode(path) == 0o640


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDONLY])
def test_no_file_is_opened_through_a_link(ground: Path, flags: int) -> None:
    (ground / "victim").write_text("as it was")
    (ground / "link").symlink_to(ground / "victim")
    (ground / "dangling").symlink_to(ground / "new")
    for name in ("link", "dangling"):
        with pytest.raises(OSError, match="symbolic links"):
            trusted.open_file(str(ground / name), flags)
    assert not (ground / "new").exists()
    trusted.write_file(str(ground / "link"), "other")  # replaces it
    assert (ground / "victim").read_text() == "as it was"
    (ground / "text.new").symlink_to(ground / "victim")
    trusted.write_file(str(ground / "text"), "other")
    assert (ground / "victim").read_text() == "as it was"


def test_neither_fifo_nor_directory_is_taken_for_a_file(ground: Path) -> None:
    os.mkfifo(ground / "fifo")
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        with pytest.raises(UntrustedError, match="no regular file"):
            trusted.open_file(str(ground / "fifo"), flags)


@needs_root
def test_a_file_of_another_user_is_refused(ground: Path) -> None:
    (ground / "lock").write_text("")
    os.chown(ground / "lock", NOBODY, -1)
    with pytest.raises(UntrustedError, match=f"uid {NOBODY}"):
        trusted.open_file(str(ground / "lock"), os.O_RDWR | os.O_CREAT)
    weak = trusted.planted(str(ground), ("lock",))
    assert weak is not None
    assert weak.mend == f"rm {ground}/lock"


@pytest.mark.parametrize("name", ["config.accepted.toml", "journal.db-wal", "history.json"])
def test_planted_files_are_found(ground: Path, name: str) -> None:
    place = Place.of(str(ground / "everup.toml"), ".")
    (ground / name).write_text("")
    assert place.weakness() is None
    (ground / name).chmod(0o666)
    assert place.weakness() is not None
    (ground / name).unlink()
    (ground / "elsewhere").write_text("")
    (ground / name).symlink_to("elsewhere")
    assert place.weakness() is None
    (ground / "elsewhere").chmod(0o666)
    assert place.weakness() is not None


@needs_root
def test_nothing_is_read_to_who_may_not_read_it(ground: Path) -> None:
    secret, open_file, theirs = ground / "secret", ground / "open", ground / "theirs"
    for path, bits in ((secret, 0o600), (open_file, 0o644), (theirs, 0o600)):
        path.write_text("A=1")
        path.chmod(bits)
    os.chown(theirs, NOBODY, -1)
    for path in (secret, open_file, theirs):
        link = ground / f"{path.name}.env"
        link.symlink_to(path)
        assert named.read_text(str(link)) == "A=1"
        os.chown(link, NOBODY, -1, follow_symlinks=False)
    assert named.read_text(str(ground / "open.env")) == "A=1"
    assert named.read_text(str(ground / "theirs.env")) == "A=1"
    with pytest.raises(OSError, match="may not read it"):
        named.read_text(str(ground / "secret.env"))
    (ground / "directory").symlink_to(ground)
    os.chown(ground / "directory", NOBODY, -1, follow_symlinks=False)
    with pytest.raises(OSError, match="may not read it"):
        named.read_text(str(ground / "directory" / "secret"))


# -- where the state is


def parent(path: Path) -> int:
    """The inode of what is opened for a path's last name."""
    directory = trusted.open_parent(str(path))
    try:
        return os.fstat(directory).st_ino
    finally:
        os.close(directory)


@needs_root
def test_a_link_of_somebody_else_leads_only_to_what_is_theirs(ground: Path) -> None:
    for name in ("theirs", "roots", "others", "theirs/releases"):
        (ground / name).mkdir()
    links = {"current": "releases", "up": "../roots", "over": "../others", "away": str(ground)}
    for name, target in links.items():
        (ground / "theirs" / name).symlink_to(target)
        os.chown(ground / "theirs" / name, NOBODY, -1, follow_symlinks=False)
    os.chown(ground / "theirs", NOBODY, -1)
    os.chown(ground / "theirs" / "releases", NOBODY, -1)
    os.chown(ground / "others", NOBODY - 1, -1)
    (ground / "mine").symlink_to("roots")
    releases, roots = ((ground / name).stat().st_ino for name in ("theirs/releases", "roots"))
    assert parent(ground / "theirs" / "releases" / "web.sock") == releases
    assert parent(ground / "theirs" / "current" / "web.sock") == releases
    assert parent(ground / "mine" / "web.sock") == roots
    for name in ("up", "over", "away"):
        with pytest.raises(UntrustedError) as caught:
            parent(ground / "theirs" / name / "web.sock")
        assert caught.value.weakness.mend == f"rm {ground}/theirs/{name}"
        assert f"uid {NOBODY}" in str(caught.value)


def test_no_parent_where_there_is_none(ground: Path) -> None:
    (ground / "file").write_text("")
    for path in ("missing/web.sock", "file/web.sock", "missing/deeper/web.sock"):
        with pytest.raises(FileNotFoundError):
            parent(ground / path)


@needs_root
def test_a_unix_listener_through_the_link_of_somebody_else(ground: Path) -> None:
    """Root neither makes a socket nor removes one where that user could not."""
    (ground / "theirs").mkdir()
    (ground / "roots").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(ground / "roots" / "dead.sock"))
    os.chown(ground / "theirs", NOBODY, -1)
    (ground / "theirs" / "run").symlink_to(ground / "roots")
    os.chown(ground / "theirs" / "run", NOBODY, -1, follow_symlinks=False)
    for name in ("dead.sock", "new.sock"):
        path = f"{ground}/theirs/run/{name}"
        listener = Listener("web", f"unix:{path}")
        with pytest.raises(OSError, match=f"{ground}/theirs/run is a link of"):
            binding.listen(Address("unix", path=path), listener, True)
    assert os.listdir(ground / "roots") == ["dead.sock"]
    (ground / "theirs" / "run").unlink()
    (ground / "theirs" / "run").symlink_to(ground / "roots")  # root's own link
    with binding.listen(Address("unix", path=path), listener, True) as sock:
        binding.unlink_own(path, binding.file_of(sock))
    assert os.listdir(ground / "roots") == ["dead.sock"]


def test_beside_the_config_where_that_is_good(ground: Path) -> None:
    assert Place.own(str(ground / "everup.toml"), None).state_dir == f"{ground}/.everup"
    assert Place.own(str(ground / "everup.toml"), "x").state_dir == f"{ground}/x"


@needs_root
def test_elsewhere_where_others_may_write(ground: Path) -> None:
    for name in ("one", "two"):
        (ground / name / "shop").mkdir(parents=True)
        os.chown(ground / name / "shop", NOBODY, -1)
    one, two = (
        Place.own(str(ground / name / "shop" / "everup.toml"), None).state_dir
        for name in ("one", "two")
    )
    assert one != two  # also of directories of one name
    assert Path(one).parent == Path(two).parent == Path(places.STORE)
    assert Path(one).name.startswith("shop-")
    (ground / "link").symlink_to(ground / "one")
    assert Place.own(str(ground / "link" / "shop" / "everup.toml"), None).state_dir == one
    config = str(ground / "one" / "shop" / "everup.toml")
    Path(config).write_text("")
    found = [place.state_dir for place in Place.candidates(config, None)]
    assert found[:2] == [one, f"{ground}/one/shop/.everup"]
    named = Place.own(config, "state")  # refused later, with the command that mends it
    assert named.state_dir == f"{ground}/one/shop/state"


def test_a_long_path_has_its_sockets_elsewhere_by_the_path_alone(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ground / ("x" * 120)
    state.mkdir()
    found = run_dir(str(state))
    monkeypatch.setenv("TMPDIR", str(ground))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(ground))
    tempfile.tempdir = None
    assert run_dir(str(state)) == found
    assert len(found) < 80
    (ground / "link").symlink_to(state)
    assert run_dir(f"{ground}/link/../{state.name}") == found
    if os.getuid() == 0:
        assert found.startswith("/run/everup/")
        os.chown(state, NOBODY, -1)
        assert run_dir(str(state)).startswith(f"/tmp/everup-{NOBODY}-")
    assert run_dir(str(ground)) == str(ground)


@needs_root
def test_root_reads_what_is_another_users_with_that_users_rights(ground: Path) -> None:
    (ground / "secret").write_text("root's")
    (ground / "secret").chmod(0o600)
    weak = trusted.Weakness(str(ground), "belongs to nobody", "", NOBODY)
    with trusted.as_owner(weak):
        assert os.geteuid() == NOBODY
        with pytest.raises(PermissionError):
            (ground / "secret").read_text()
    assert (ground / "secret").read_text() == "root's"
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
