"""Commands while everup is off, and for a config that is not the one that runs."""

import shutil

from _everup import SLEEP, Everup, sh


def test_events_and_output_after_the_end(everup: Everup) -> None:
    """The next command that a report shows must work after a crash, too."""
    everup.up({"web": {"command": sh("echo hello; exec sleep 1000")}})
    everup.wait_for(lambda: everup.output("web.1"), "it has spoken")
    running = everup.cli("events", "--json", "-s", "web").out.splitlines()
    everup.down()
    after = everup.cli("events", "--json", "-s", "web")
    assert after.out.splitlines()[: len(running)] == running
    assert "everup is not running: events from its files" in after.err
    last = everup.cli("events", "-n", "1", "-k", "engine.*", "--since", "1h").out
    assert "engine.stopped" in last
    assert everup.cli("logs", "web", "--plain").out == "hello\n"
    assert everup.cli("logs", "web.1", "--plain").out == "hello\n"
    assert "web.1" in everup.cli("logs", "nobody", expect=2).err
    assert "no kind of event" in everup.cli("events", "-k", "nothing", expect=1).err
    assert "not running" in everup.cli("events", "-f", expect=3).err


def test_nothing_there(everup: Everup) -> None:
    everup.write({"web": {"command": SLEEP}})
    for command in ("events", "logs"):
        assert "start it: everup" in everup.cli(command, expect=3).err


def test_another_config_in_the_same_directory(everup: Everup) -> None:
    """It drove the services of the first one without a word."""
    everup.up({"web": {"command": SLEEP}})
    pid, first = everup.pid("web.1"), everup.config
    other = first.with_name("größer.toml")
    shutil.copy(first, other)
    everup.config = other
    try:
        refused = everup.cli("restart", "web", expect=1)
        assert f"that of {first}, not of {other}" in refused.err
        everup.cli("down", expect=1)
    finally:
        everup.config = first
    assert everup.pid("web.1") == pid


def test_the_state_directory_was_removed(everup: Everup) -> None:
    """A second everup ran every service twice, and nobody could stop the first."""
    everup.up({"web": {"command": SLEEP}})
    keeper = everup.own().keeper
    state = everup.directory / "moved"
    shutil.move(everup.place.state_dir, state)
    try:
        refused = everup.cli("up", "-d", expect=1)
        assert f"was removed or replaced (keeper pid {keeper})" in refused.err
    finally:
        shutil.rmtree(everup.place.state_dir, ignore_errors=True)
        shutil.move(state, everup.place.state_dir)


def test_a_lock_that_is_no_file(everup: Everup) -> None:
    everup.write({"web": {"command": SLEEP}})
    lock = everup.directory / ".everup" / "lock"
    lock.mkdir(parents=True)
    assert f"cannot open {lock}" in everup.cli("up", "-d", expect=1).err
    lock.rmdir()
