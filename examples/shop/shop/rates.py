"""A small service that the web asks: what a euro costs. ``uvicorn shop.rates:app --fd 3``."""

import json
import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

RATES = {"CHF": 0.94, "EUR": 1.0, "GBP": 0.84, "USD": 1.08}


def keep() -> None:
    """Keep today's rates where others find them. A full disk ends the service, as it would many."""
    if path := os.environ.get("SHOP_RATES_FILE"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(RATES, file)


async def rates(_request: Request) -> Response:
    """All rates."""
    return JSONResponse(RATES)


keep()
app = Starlette(routes=[Route("/rates", rates), Route("/healthz", rates)])
