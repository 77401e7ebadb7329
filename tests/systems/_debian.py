"""Debian packages unpacked beside the system, never installed: for tests with real peers.

Nothing outside the cache folder is changed, and no root is needed. What the machine has already
installed is used as it is.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path


class MissingError(Exception):
    """A peer cannot be had on this machine; the text says what to install."""


def cache() -> Path:
    """Give the folder in which downloads outlive the checkout."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "everup-systems"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unpacked(name: str, packages: Sequence[str]) -> Path:
    """Give a folder with these packages and all that they need and the machine lacks.

    It is made once for each set of packages and release. Raises ``MissingError`` where apt has
    none of them.
    """
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or shutil.which("apt-get") is None:
        raise MissingError(f"{name}: needs Debian; install {' '.join(packages)}")
    key = hashlib.sha256(" ".join([release["VERSION_ID"], *sorted(packages)]).encode())
    root = cache() / f"{name}-debian{release['VERSION_ID']}-{key.hexdigest()[:10]}"
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest-xdist: several at once
        if not (root / ".whole").exists():
            _fill(root, name, packages)
    return root


def libraries(root: Path) -> str:
    """Give what LD_LIBRARY_PATH must be for programs of ``root``."""
    places = [root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu", root / "usr/lib"]
    triplet = f"{platform.machine()}-linux-gnu"
    return ":".join(str(p).replace("x86_64-linux-gnu", triplet) for p in places)


def _fill(root: Path, name: str, packages: Sequence[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    archives = root / "archives"
    archives.mkdir(parents=True)
    plan = ["apt-get", "-s", "-qq", "--no-install-recommends", "install", *packages]
    said = subprocess.run(plan, capture_output=True, text=True, check=False)
    lines = [line.split() for line in said.stdout.splitlines() if line.startswith("Inst ")]
    wanted = [line[1:3] for line in lines if line[2].startswith("(")]  # "[1.2]": is installed
    if said.returncode:
        advice = f"apt-get update && apt-get install {' '.join(packages)}"
        raise MissingError(f"{name}: {said.stderr.strip()[-400:]}; try: {advice}")
    names = [f"{package}={version.lstrip('(')}" for package, version in wanted]
    if names:
        get = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *names]
        done = subprocess.run(get, cwd=archives, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"{name}: {done.stderr.strip()[-400:]}; try: apt-get update")
    for archive in sorted(archives.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)
    shutil.rmtree(archives)
    (root / ".whole").touch()
