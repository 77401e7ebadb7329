"""Bodies of requests."""

import json
from typing import Any

from aiohttp import web

from everup.api.commands import Refusal


async def body_of(request: web.Request) -> dict[str, Any]:
    """Read the body as a JSON object; an empty one is ``{}``. Raises ``Refusal``."""
    try:
        text = await request.read()
        body = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    return body
