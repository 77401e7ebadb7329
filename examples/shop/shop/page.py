"""The start page."""

from collections.abc import Sequence
from html import escape

from shop.store import Order


def render(products: Sequence[dict[str, object]], orders: Sequence[Order], replica: str) -> str:
    """Products, the latest orders, and which replica answered."""
    goods = "".join(
        f"<tr><td>{escape(str(p['name']))}</td><td>{_euro(p['price_cents'])}</td></tr>"
        for p in products
    )
    latest = "".join(
        f"<tr><td>{escape(o.id)}</td><td>{_euro(o.total_cents)}</td><td>{escape(o.state)}</td></tr>"
        for o in orders
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shop</title>'
        "<style>body{font:16px system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td{padding:.3rem;border-bottom:1px solid #ddd}"
        "</style></head><body><h1>Shop</h1>"
        f"<h2>Products</h2><table>{goods}</table>"
        f"<h2>Latest orders</h2><table>{latest}</table>"
        f"<p>Answered by replica {escape(replica)}.</p></body></html>"
    )


def _euro(cents: object) -> str:
    return f"{int(str(cents)) / 100:.2f} €"
