"""A real Icinga 2 as Debian packages it, in a mount namespace of its own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import trustme
from _debian import unpacked
from _nagios import wait_for

_START = """
set -e
for d in /run /var/lib /var/cache /var/log; do mount -t tmpfs -o mode=755 none $d; done
mkdir -p /run/i /run/icinga2 /var/lib/icinga2/certs /var/cache/icinga2 /var/log/icinga2
mount --bind "$ROOT/usr" /run/i
cp "$FOLDER"/ca.crt "$FOLDER"/icinga.crt "$FOLDER"/icinga.key /var/lib/icinga2/certs/
cp "$FOLDER"/icinga2.conf /run/
own="/run/icinga2 /var/lib/icinga2 /var/cache/icinga2 /var/log/icinga2"
chown -R "$ICINGA2_USER:$ICINGA2_GROUP" $own
export LD_LIBRARY_PATH="/run/i/lib/$(uname -m)-linux-gnu"
exec /run/i/lib/$(uname -m)-linux-gnu/icinga2/sbin/icinga2 daemon \
  -I /run/i/share/icinga2/include -c /run/icinga2.conf
"""
_CONFIG = """
const NodeName = "icinga"
const ZoneName = "icinga"
include <itl>
object Endpoint NodeName {{}}
object Zone ZoneName {{ endpoints = [ NodeName ] }}
object CheckerComponent "checker" {{}}
object ApiListener "api" {{ bind_host = "0.0.0.0"; bind_port = {port} }}
object ApiUser "everup" {{ password = "s3cret"; permissions = [ "actions/process-check-result" ] }}
object ApiUser "reader" {{ password = "reader"; permissions = [ "objects/query/*" ] }}
{objects}
"""


class Icinga:
    """One Icinga, which knows of these objects."""

    def __init__(self, folder: Path, port: int, objects: str) -> None:
        self.folder = folder
        self.port = port
        authority = trustme.CA()
        server = authority.issue_cert("icinga", "127.0.0.2", common_name="icinga")
        chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
        (folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
        (folder / "icinga.crt").write_bytes(chain)
        (folder / "icinga.key").write_bytes(server.private_key_pem.bytes())
        (folder / "icinga2.conf").write_text(_CONFIG.format(port=port, objects=objects))

    @contextlib.contextmanager
    def running(self) -> Iterator["Icinga"]:
        root = unpacked("icinga2", ("icinga2-bin", "icinga2-common"))
        user = ("nobody", "nogroup") if os.geteuid() == 0 else ("root", "root")
        names = {"ICINGA2_USER": user[0], "ICINGA2_GROUP": user[1]}
        env = os.environ | names | {"ROOT": str(root), "FOLDER": str(self.folder)}
        alone = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        with open(self.folder / "said", "wb") as said:
            process = subprocess.Popen(
                [*alone, "sh", "-c", _START], env=env, stdout=said, stderr=subprocess.STDOUT
            )
        try:

            def there() -> bool:
                assert process.poll() is None, (self.folder / "said").read_text()
                return bool(self._get("status"))

            wait_for(there, "Icinga answers")
            yield self
        finally:
            process.terminate()
            process.wait(10)

    def service(self, name: str) -> tuple[int, str, list[str]]:
        """Give state, output and performance data."""
        found = self._get(f"objects/services/box!{name}")["results"][0]["attrs"]
        result = found["last_check_result"] or {"output": "", "performance_data": []}
        return int(found["state"]), result["output"], result["performance_data"]

    def wait(self, name: str, state: int, text: str = "") -> tuple[int, str, list[str]]:
        """Wait until a service is in a state."""
        found = []

        def there() -> bool:
            found[:] = [self.service(name)]
            return found[0][0] == state and text in found[0][1]

        try:
            wait_for(there, f"{name} is in state {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found}") from error
        return found[0]

    def _get(self, path: str) -> Any:
        url = f"https://127.0.0.2:{self.port}/v1/{path}"
        ca = str(self.folder / "ca.crt")
        try:
            return requests.get(url, auth=("reader", "reader"), verify=ca, timeout=5).json()
        except (requests.ConnectionError, requests.Timeout):
            return None
