"""Where a request's handler finds the process that it serves. Apart from ``backend``, since the
engine begins before it has loaded aiohttp."""

from typing import Final

from aiohttp import web

from everup.api.backend import Backend

BACKEND: Final = web.AppKey("backend", Backend)
