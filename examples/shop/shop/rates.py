"""A small service that the web asks: what a euro costs. ``uvicorn shop.rates:app --fd 3``."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

RATES = {"CHF": 0.94, "EUR": 1.0, "GBP": 0.84, "USD": 1.08}


async def rates(_request: Request) -> Response:
    """All rates."""
    return JSONResponse(RATES)


app = Starlette(routes=[Route("/rates", rates), Route("/healthz", rates)])
