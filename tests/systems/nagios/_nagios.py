"""A real Nagios 4 in a folder of its own, as Debian packages it."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _debian import libraries, unpacked

PACKAGES = (
    "nagios4-core",
    "monitoring-plugins-basic",
    "nagios-nrpe-server",
    "nagios-nrpe-plugin",
    "nsca",
    "nsca-client",
)
DEADLINE_S = 20.0


def packages() -> Path:
    """Give where the packages are unpacked."""
    return unpacked("nagios", PACKAGES)


def environment(root: Path) -> dict[str, str]:
    """Give the environment for programs of the packages."""
    return os.environ | {"LD_LIBRARY_PATH": libraries(root), "LC_ALL": "C.UTF-8"}


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)


class Nagios:
    """One Nagios that takes passive results of the objects it is given."""

    def __init__(self, folder: Path, objects: str, account: tuple[str, str] | None = None) -> None:
        self.root = packages()
        self.folder = folder
        self.account = account
        user, group = account or _myself()
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("rw", "spool", "log", "archive"):
            (folder / name).mkdir(parents=True)
        (folder / "objects.cfg").write_text(objects)
        self.config = folder / "nagios.cfg"
        self.config.write_text(_CONFIG.format(d=folder, user=user, group=group))
        self.command_file = folder / "rw/nagios.cmd"
        self.spool = folder / "spool"
        self.spool.chmod(0o777)
        self.process: subprocess.Popen[bytes] | None = None
        if account is not None:  # as Debian sets it up, and a group may write
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user, group)
            # The cache is in a home that others may not enter.
            shutil.copy(self.root / "usr/sbin/nagios4", folder / "nagios4")
            self.spool.chmod(0o770)
            (folder / "rw").chmod(0o2710)

    def check(self) -> str:
        """Verify the config; give what Nagios says of it."""
        argv = [str(self.root / "usr/sbin/nagios4"), "-v", str(self.config)]
        done = subprocess.run(
            argv, env=environment(self.root), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self) -> "Nagios":
        copied = self.folder / "nagios4"
        program = copied if copied.exists() else self.root / "usr/sbin/nagios4"
        argv = [str(program), str(self.config)]
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen(
                argv, env=environment(self.root), stdout=said, stderr=subprocess.STDOUT
            )

        def there() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "said").read_text()
            return self.command_file.exists() and (self.folder / "status.dat").exists()

        wait_for(there, "Nagios has started")
        if self.account is None:
            # The observer is another user. On a real machine it is in Nagios' group.
            self.command_file.chmod(0o666)
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def log(self) -> str:
        return (self.folder / "log/nagios.log").read_text(errors="replace")

    def service(self, name: str) -> dict[str, str]:
        """Give what status.dat says of a service; empty where it has none."""
        for block in self._status("servicestatus"):
            if block.get("service_description") == name:
                return block
        return {}

    def host(self) -> dict[str, str]:
        return next(iter(self._status("hoststatus")), {})

    def wait(self, name: str, state: int, text: str = "") -> dict[str, str]:
        """Wait until a service is in a state."""
        found: dict[str, str] = {}

        def there() -> bool:
            found.clear()
            found.update(self.service(name))
            return (
                found.get("current_state") == str(state)
                and found.get("has_been_checked") == "1"
                and text in found.get("plugin_output", "")
            )

        try:
            wait_for(there, f"{name} is in state {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found}\n{self.log()[-2000:]}") from error
        return found

    def _status(self, kind: str) -> Sequence[dict[str, str]]:
        blocks: list[dict[str, str]] = []
        current: dict[str, str] | None = None
        try:
            text = (self.folder / "status.dat").read_text(errors="replace")
        except FileNotFoundError:  # it is being replaced
            return blocks
        for line in text.split("\n"):
            line = line.strip()
            if line.endswith("{"):
                current = {}
                if line[:-1].strip() == kind:
                    blocks.append(current)
            elif current is not None and "=" in line:
                key, _, value = line.partition("=")
                current[key] = value
        return blocks


def _myself() -> tuple[str, str]:
    import grp
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name


_CONFIG = """cfg_file={d}/objects.cfg
log_file={d}/log/nagios.log
object_cache_file={d}/objects.cache
precached_object_file={d}/objects.precache
status_file={d}/status.dat
temp_file={d}/nagios.tmp
temp_path={d}
lock_file={d}/nagios.pid
command_file={d}/rw/nagios.cmd
query_socket={d}/rw/nagios.qh
check_result_path={d}/spool
log_archive_path={d}/archive
state_retention_file={d}/retention.dat
nagios_user={user}
nagios_group={group}
interval_length=1
status_update_interval=1
check_result_reaper_frequency=1
check_external_commands=1
check_for_updates=0
use_syslog=0
event_broker_options=0
service_freshness_check_interval=1
host_freshness_check_interval=1
check_host_freshness=1
check_service_freshness=1
additional_freshness_latency=0
log_passive_checks=1
illegal_object_name_chars=`~!$%^&*|'"<>?,()=
illegal_macro_output_chars=`~$&|'"<>
"""
