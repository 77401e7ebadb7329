"""A real Zabbix in a folder of its own, as Debian packages it: database, server, API."""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from _debian import MissingError, cache
from _releases import Release, environment, packages, six

DEADLINE_S = 60.0
PASSWORD = "zabbix"
_EXTENSIONS = [
    "pgsql",
    "bcmath",
    "ctype",
    "gettext",
    "mbstring",
    "sockets",
    "gd",
    "simplexml",
    "dom",
    "xmlreader",
    "xmlwriter",
    "xml",
]
_NOBODY = 65534

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    until = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.1)  # each look at the API is a process' work of 20 ms
    return found


def free_port() -> int:
    """Give a port of those that Zabbix takes: 1 024 to 32 767."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


class Database:
    """A PostgreSQL 15 with Zabbix' tables in it, made once and copied from then on."""

    def __init__(self, folder: Path, release: Release) -> None:
        self.folder = folder
        self._release = release
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = cache() / f"{self._release.root.name}-data.tar"
        fresh = not kept.exists()
        self.folder.mkdir(mode=0o700)
        if fresh:
            self._give()
            self._run("initdb", "-D", str(self.folder), "-A", "trust", "-E", "UTF8", "--no-sync",
                      "-U", "zabbix", "--locale=C.UTF-8")  # fmt: skip
        else:
            subprocess.run(["tar", "xf", str(kept), "-C", str(self.folder)], check=True)
            self._give()
        self._serve()
        if fresh:
            self._fill()
            self.stop()
            made = kept.with_name(f"{kept.name}.{os.getpid()}")
            subprocess.run(["tar", "cf", str(made), "-C", str(self.folder), "."], check=True)
            made.rename(kept)
            self._serve()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(2)  # fast shutdown
            self.process.wait(DEADLINE_S)
            self.process = None

    def _serve(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "",
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
            "autovacuum": "off", "shared_buffers": "32MB", "dynamic_shared_memory_type": "mmap",
        }  # fmt: skip
        options = [f"--{key}={value}" for key, value in settings.items()]
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(
                self._argv("postgres", "-D", str(self.folder), *options),
                env=environment(), stdout=log, stderr=log, cwd="/",
            )  # fmt: skip

        def there() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.folder.with_suffix(".log").read_text()
            asked = self._argv("psql", *self._where(), "-c", "select 1")
            return subprocess.run(asked, env=environment(), capture_output=True).returncode == 0

        wait_for(there, "PostgreSQL has started")

    def _fill(self) -> None:
        scripts = self._release.root / "usr/share/zabbix-server-pgsql"
        for name in ("schema", "images", "data"):
            self._sql(
                subprocess.run(["zcat", scripts / f"{name}.sql.gz"], capture_output=True).stdout
            )
        # The host that watches Zabbix itself costs more than our tests; and without statistics
        # some queries of Zabbix 7 take half a minute.
        self._sql(b"update hosts set status=1 where host='Zabbix server'; analyze;")

    def _sql(self, text: bytes) -> None:
        asked = self._argv("psql", "-q", "-v", "ON_ERROR_STOP=1", *self._where())
        subprocess.run(asked, input=text, env=environment(), check=True, stdout=-3)

    def _where(self) -> Sequence[str]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", "zabbix", "postgres")

    def _run(self, *argv: str) -> None:
        subprocess.run(self._argv(*argv), env=environment(), check=True, stdout=-3, cwd="/")

    def _argv(self, name: str, *rest: str) -> list[str]:
        """PostgreSQL refuses to run as root; below root's home nobody could not read it."""
        argv = [str(_postgres() / name), *rest]
        if os.geteuid():
            return argv
        caps = "+dac_override"
        return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups",
                f"--inh-caps={caps}", f"--ambient-caps={caps}", *argv]  # fmt: skip

    def _give(self) -> None:
        if not os.geteuid():
            subprocess.run(["chown", "-R", f"{_NOBODY}:{_NOBODY}", str(self.folder)], check=True)


def _postgres() -> Path:
    for base in (packages() / "usr", Path("/usr")):
        for version in sorted((base / "lib/postgresql").glob("*/bin"), reverse=True):
            if (version / "initdb").exists() and (version / "psql").exists():
                return version
    raise MissingError("zabbix: no PostgreSQL; try: apt-get install postgresql")


class Zabbix:
    """One Zabbix server with its API and database."""

    def __init__(self, folder: Path, release: Release | None = None) -> None:
        self.folder = folder
        self.release = release or six()
        folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(folder / "db", self.release)
        self.port = free_port()
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        self._server: subprocess.Popen[bytes] | None = None
        self._php: subprocess.Popen[bytes] | None = None
        self._token = ""

    def start(self, *settings: str) -> "Zabbix":
        self.database.start()
        self._start_api()
        self.start_server(*settings)
        credentials = {"username": "Admin", "password": PASSWORD}
        self._token = wait_for(lambda: self._login(credentials), "the API answers")
        return self

    def stop(self) -> None:
        self.stop_server()
        if self._php is not None:
            self._php.kill()
            self._php.wait()
        self.database.stop()

    def start_server(self, *settings: str) -> None:
        config = self.folder / "server.conf"
        config.write_text(_CONFIG.format(z=self, f=self.folder, more="\n".join(settings)))
        argv = self.release.argv("usr/sbin/zabbix_server", "-f", "-c", str(config))
        with open(self.folder / "server.out", "ab") as out:
            self._server = subprocess.Popen(argv, env=environment(), stdout=out, stderr=out)

        def there() -> bool:
            assert self._server is not None
            assert self._server.poll() is None, self.log()
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(there, "the server listens")

    def stop_server(self) -> None:
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def log(self) -> str:
        parts = [self.folder / "server.log", self.folder / "server.out", self.folder / "php.log"]
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in parts if p.exists())

    def api(self, method: str, **params: Any) -> Any:
        """Ask the API. An error of its fails the test."""
        return self.api_of(method, params)

    def api_of(self, method: str, params: Any) -> Any:
        """Ask the API with parameters that are no object."""
        answer = self._call(method, params)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def host(self, name: str, **settings: Any) -> str:
        """Make a host; give its id."""
        found = self.api("hostgroup.get", filter={"name": "test"})
        group = found[0]["groupid"] if found else None
        group = group or self.api("hostgroup.create", name="test")["groupids"][0]
        groups = [{"groupid": group}]
        return str(self.api("host.create", host=name, groups=groups, **settings)["hostids"][0])

    def items(self, host: str) -> dict[str, dict[str, Any]]:
        """The items of a host by key."""
        found = self.api("item.get", host=host, output=["key_", "lastvalue", "state", "error"])
        return {item["key_"]: item for item in found}

    def _login(self, credentials: dict[str, str]) -> str:
        try:
            answer = self._call("user.login", credentials)
        except OSError:
            return ""
        assert "result" in answer, f"{answer}\n{self.log()}"
        return str(answer["result"])

    def _call(self, method: str, params: Any) -> Any:
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        if self._token:
            body["auth"] = self._token
        request = urllib.request.Request(
            f"{self.url}/api_jsonrpc.php",
            json.dumps(body).encode(),
            {"Content-Type": "application/json-rpc"},
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            text = answer.read()
        try:
            return json.loads(text)
        except ValueError:
            raise AssertionError(f"{method}: {text[:1000]!r}\n{self.log()}") from None

    def _start_api(self) -> None:
        root = packages()
        pages = self.release.root / "usr/share/zabbix"
        # Debian has the settings in /etc, which is not ours; they are the same for every test.
        conf = pages / "conf/zabbix.conf.php"
        _put(conf, _PHP_CONFIG)
        reader = pages / "include/classes/core/CConfigFile.php"
        _put(reader, reader.read_text().replace("'/etc/zabbix/zabbix.conf.php'", f"'{conf}'"))
        libs = next((root / "usr/lib/php").glob("20*"), None)
        php = root / "usr/bin/php8.2"
        argv = [str(php) if php.exists() else (shutil.which("php") or "php"), "-n"]
        if php.exists() and libs is not None:
            settings = [f"extension_dir={libs}", *(f"extension={e}" for e in _EXTENSIONS)]
            settings += ["zend_extension=opcache", "opcache.enable_cli=1"]
            settings += ["date.timezone=UTC", "post_max_size=16M", "memory_limit=256M",
                         "max_execution_time=300"]  # fmt: skip
            for setting in settings:
                argv += ["-d", setting]
        argv += ["-S", f"127.0.0.1:{self.api_port}", "-t", str(pages)]
        more = {"ZBX_DB_PORT": str(self.database.port), "ZBX_PORT": str(self.port)}
        with open(self.folder / "php.log", "ab") as log:
            self._php = subprocess.Popen(
                argv, env=environment(**more), stdout=log, stderr=log, cwd=pages
            )


def _put(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        made = path.with_name(f"{path.name}.{os.getpid()}")
        made.write_text(text)
        made.rename(path)


_PHP_CONFIG = """<?php
$DB = ['TYPE' => 'POSTGRESQL', 'SERVER' => '127.0.0.1', 'PORT' => getenv('ZBX_DB_PORT'),
  'DATABASE' => 'postgres', 'USER' => 'zabbix', 'PASSWORD' => '', 'SCHEMA' => '',
  'ENCRYPTION' => false, 'KEY_FILE' => '', 'CERT_FILE' => '', 'CA_FILE' => '',
  'VERIFY_HOST' => false, 'CIPHER_LIST' => '', 'VAULT_URL' => '', 'VAULT_DB_PATH' => '',
  'VAULT_TOKEN' => '', 'DOUBLE_IEEE754' => true];
$ZBX_SERVER = '127.0.0.1';
$ZBX_SERVER_PORT = getenv('ZBX_PORT');
$ZBX_SERVER_NAME = 'test';
$IMAGE_FORMAT_DEFAULT = IMAGE_FORMAT_PNG;
"""

_CONFIG = """ListenIP=127.0.0.1
ListenPort={z.port}
LogFile={f}/server.log
PidFile={f}/server.pid
SocketDir={f}
DBHost=127.0.0.1
DBPort={z.database.port}
DBName=postgres
DBUser=zabbix
Timeout=4
StartPollers=1
StartPreprocessors=1
StartPollersUnreachable=1
StartHistoryPollers=1
StartTrappers=2
StartPingers=0
StartDiscoverers=0
StartHTTPPollers=0
StartTimers=1
StartEscalators=1
StartAlerters=1
StartDBSyncers=1
StartLLDProcessors=1
CacheUpdateFrequency=1
HousekeepingFrequency=0
StatsAllowedIP=127.0.0.1
FpingLocation=/bin/true
AllowRoot=1
{more}
"""
