"""Real search servers from Maven Central: OpenSearch from its libraries, Elasticsearch from the
distribution that its own integration tests use."""

import base64
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _debian import MissingError, cache

OPENSEARCH = "2.19.6"
DEADLINE_S = 150.0
_JAVA_HOME = "/usr/lib/jvm/java-17-openjdk-amd64"
_DISTRIBUTIONS = {
    "5.6.16": "org.elasticsearch.distribution.zip",
    "7.17.29": "org.elasticsearch.distribution.integ-test-zip",
    "8.19.21": "org.elasticsearch.distribution.integ-test-zip",
}
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>{all}</dependencies>
</project>"""
_LIBRARIES = (
    f"org.opensearch:opensearch:{OPENSEARCH}",
    f"org.opensearch.plugin:transport-netty4-client:{OPENSEARCH}",
    f"org.opensearch.plugin:analysis-common:{OPENSEARCH}",
    f"org.opensearch.plugin:lang-painless:{OPENSEARCH}",
    "org.apache.logging.log4j:log4j-core:2.25.4",
)


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    until = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Search:
    """One search server on a port of its own. Its data outlives ``kill`` and ``stop``."""

    def __init__(
        self, version: str, folder: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        """``version``: ``opensearch``, or the number of an Elasticsearch."""
        self.version = version
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers: dict[str, str] = {}
        self._tls: ssl.SSLContext | None = None
        self.settings = dict(settings or {})
        self._transport = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> "Search":
        argv, options = self._opensearch() if self.version == "opensearch" else self._elastic()
        with open(self.folder / "said", "ab") as said:
            self.process = subprocess.Popen(
                argv, stdout=said, stderr=said, start_new_session=True, **options
            )

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "said").read_text()[-3000:]
            try:
                return self.ask("GET", "/_cluster/health?wait_for_status=yellow")[0] in (200, 401)
            except OSError:
                return False

        try:
            wait_for(answers, f"{self.version} answers")
        except BaseException:
            self.kill()
            raise
        return self

    def trust(self, ca: Path, user: str, password: str) -> None:
        """Speak TLS with it from now on, as a user."""
        self.url = self.url.replace("http:", "https:")
        self._tls = ssl.create_default_context(cafile=ca)
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers["Authorization"] = f"Basic {pair}"

    def kill(self) -> None:
        """kill -9 of all of it."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Give status and body of an answer. Raises ``OSError``."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | self.headers
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._tls) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")
        except (ConnectionError, ValueError) as error:
            raise OSError(str(error)) from error

    def documents(self, target: str) -> list[dict[str, Any]]:
        """Give every document of a target, after a refresh."""
        self.ask("POST", f"/{target}/_refresh")
        found: list[dict[str, Any]] = []
        status, page = self.ask(
            "POST", f"/{target}/_search?scroll=1m", {"size": 5000, "query": {"match_all": {}}}
        )
        assert status == 200, page
        while page["hits"]["hits"]:
            found += [hit | {"_source": hit["_source"]} for hit in page["hits"]["hits"]]
            asked = {"scroll": "1m", "scroll_id": page["_scroll_id"]}
            status, page = self.ask("POST", "/_search/scroll", asked)
            assert status == 200, page
        return found

    def _opensearch(self) -> tuple[list[str], dict[str, Any]]:
        home = opensearch()
        settings = {
            "path.home": str(self.folder),
            "cluster.name": "test",
            "node.name": "one",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": str(self.port),
            "transport.port": str(self._transport),
            "transport.type": "netty4",
            "http.type": "netty4",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        words = [f"{key}={value}" for key, value in (settings | self.settings).items()]
        path = f"{home / 'classes'}:{home / 'lib'}/*"
        return [_java("java"), "-Xms256m", "-Xmx512m", "-cp", path, "OneNode", *words], {}

    def _elastic(self) -> tuple[list[str], dict[str, Any]]:
        home = self.folder / "home"
        if not home.exists():
            shutil.copytree(elasticsearch(self.version), home)
        options: dict[str, Any] = {}
        if os.geteuid() == 0:  # Elasticsearch refuses root
            nobody = pwd.getpwnam("nobody")
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
            options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        settings = {
            "network.host": "127.0.0.1",
            "http.port": str(self.port),
            "discovery.type": "single-node",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        memory = "-Xms300m -Xmx400m"
        if self.version.startswith("5"):
            settings["transport.tcp.port"] = str(self._transport)
            # Its own options are for Java 8.
            (home / "config/jvm.options").write_text("-Dfile.encoding=UTF-8\n")
            memory += " --add-opens=java.base/java.lang=ALL-UNNAMED"
        else:
            settings |= {"transport.port": str(self._transport), "xpack.security.enabled": "false"}
        argv = ["bash", str(home / "bin/elasticsearch")]
        for key, value in (settings | self.settings).items():
            argv += [f"-E{key}={value}"]
        java = _JAVA_HOME if Path(_JAVA_HOME).exists() else str(Path(_java("java")).parents[1])
        options["env"] = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "JAVA_HOME": java,
            "ES_JAVA_HOME": java,
            "ES_JAVA_OPTS": memory,
        }
        options["cwd"] = home
        return argv, options


def opensearch() -> Path:
    """Give the folder with OpenSearch's libraries and the program that starts it."""
    home = cache() / f"opensearch-{OPENSEARCH}"
    source = Path(__file__).with_name("OneNode.java")
    with open(cache() / "opensearch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / ".whole").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            (home / "pom.xml").write_text(_POM.format(all="".join(map(_dependency, _LIBRARIES))))
            _maven("dependency:copy-dependencies", f"-DoutputDirectory={home / 'lib'}", cwd=home)
            (home / ".whole").touch()
        compiled = home / "classes/OneNode.class"
        if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
            argv = [_java("javac"), "-cp", f"{home / 'lib'}/*", "-d", str(home / "classes")]
            subprocess.run([*argv, str(source)], check=True)
    return home


def elasticsearch(version: str) -> Path:
    """Give the unpacked distribution of an Elasticsearch."""
    home = cache() / f"elasticsearch-{version}"
    archive = cache() / f"elasticsearch-{version}.zip"
    with open(cache() / f"elasticsearch-{version}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            artifact = f"{_DISTRIBUTIONS[version]}:elasticsearch:{version}:zip"
            _maven("dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={cache()}")
        if not home.exists():
            fresh = cache() / f"elasticsearch-{version}.new"
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.unpack_archive(archive, fresh)
            os.rename(fresh / home.name, home)
            fresh.rmdir()
    return home


def _dependency(name: str) -> str:
    group, artifact, version = name.split(":")
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
    )


def _maven(goal: str, *arguments: str, cwd: Path | None = None) -> None:
    if shutil.which("mvn") is None:
        raise MissingError("search servers come from Maven Central: apt-get install maven")
    argv = ["mvn", "-q", "-B", goal, *arguments]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"{' '.join(argv)}: {(done.stdout + done.stderr)[-800:]}")


def _java(name: str) -> str:
    own = Path(_JAVA_HOME) / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise MissingError("search servers need Java 17: apt-get install openjdk-17-jdk-headless")
    return found
