"""The files of the page, read once: a request names one of them, or there is nothing."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

_FOLDER: Final = Path(__file__).parent.parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One file, as it is sent."""

    type: str
    tag: str
    plain: bytes
    packed: bytes

    def answer(self, request: web.Request) -> web.Response:
        """Give it, or say that the browser has it."""
        headers = {"ETag": f'"{self.tag}"', "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if self.tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self.type
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=self.packed, headers=headers)
        return web.Response(body=self.plain, headers=headers)


def read() -> dict[str, Page]:
    """Read all of them, by path. To be called while the process may read where everup is
    installed."""
    found = {}
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix in _TYPES:
            data = file.read_bytes()
            tag = hashlib.sha256(data).hexdigest()[:16]
            packed = gzip.compress(data, 9, mtime=0)
            found[f"/{file.name}"] = Page(_TYPES[file.suffix], tag, data, packed)
    found["/"] = found.pop("/index.html")
    return found
