"""Where the real Zabbix comes from: 6.0 of Debian 12, 7.0 of Debian 13, unpacked, never installed.

What Debian 13 has needs a newer C library than Debian 12: it brings its own, with all else.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _debian import MissingError, cache, libraries, unpacked

PACKAGES = (
    "zabbix-server-pgsql",
    "zabbix-frontend-php",
    "zabbix-agent",
    "php-pgsql",
    "php-cli",
    "postgresql",
)
_NEWER = ("zabbix-server-pgsql", "zabbix-agent")
_PAGES = "zabbix-frontend-php"
_SOURCE = "deb [signed-by={key}] http://deb.debian.org/debian trixie main\n"
_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Release:
    """One release of Zabbix."""

    root: Path
    """Where its packages are unpacked."""
    loader: tuple[str, ...] = ()
    """Goes before its programs."""

    def argv(self, path: str, *arguments: str) -> list[str]:
        """Give the command for a program of the packages, like ``usr/bin/zabbix_get``."""
        return [*self.loader, str(self.root / path), *arguments]


def packages() -> Path:
    """Give where the packages of Debian 12 are unpacked: with PHP, and PostgreSQL where the machine
    has none."""
    return unpacked("zabbix", PACKAGES)


def environment(**more: str) -> dict[str, str]:
    """Give the environment for programs of the packages."""
    return os.environ | {"LD_LIBRARY_PATH": libraries(packages()), "LC_ALL": "C.UTF-8"} | more


def six() -> Release:
    """Give Zabbix 6.0."""
    return Release(packages())


def seven() -> Release:
    """Give Zabbix 7.0. Raises ``MissingError`` where it cannot be had."""
    root = cache() / "zabbix-debian13"
    with open(cache() / "zabbix-debian13.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / ".whole").exists():
            _fill(root)
    libs = root / "usr/lib/x86_64-linux-gnu"
    loader = str(libs / "ld-linux-x86-64.so.2")
    return Release(root, (loader, "--library-path", str(libs)))


def _fill(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    apt = root / "apt"
    for name in ("lists/partial", "archives/partial", "got"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(_SOURCE.format(key=_KEY))
    options = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt,
        "APT::Sandbox::User": "root",
    }
    base = ["apt-get", "-qq", *(word for k, v in options.items() for word in ("-o", f"{k}={v}"))]
    _run([*base, "update"], apt)
    plan = _run([*base, "-s", "--no-install-recommends", "install", *_NEWER], apt)
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _run([*base, "download", *names, _PAGES], apt / "got")
    for archive in sorted((apt / "got").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    shutil.rmtree(apt)
    (root / ".whole").touch()


def _run(argv: Sequence[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        advice = f"Debian 13's packages {', '.join([*_NEWER, _PAGES])}"
        raise MissingError(f"zabbix 7: {done.stderr.strip()[-400:]}; needed: {advice}")
    return done.stdout
