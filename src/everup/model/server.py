"""What is known of common servers: how they behave on a socket that was passed to them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Server:
    """One kind of server."""

    name: str
    commands: tuple[str, ...]
    """Last parts of the command's path, or modules behind ``python -m``."""
    says_ready: bool = False
    """Whether it sends READY=1 by itself."""
    takes_socket: bool = True
    """Whether it can be made to serve on a socket that was passed to it."""


SERVERS = (
    Server("uvicorn", ("uvicorn",)),
    Server("hypercorn", ("hypercorn",)),
    Server("gunicorn", ("gunicorn",), says_ready=True),
    Server("granian", ("granian",), takes_socket=False),
    Server("daphne", ("daphne",)),
    Server("waitress", ("waitress-serve", "waitress")),
    Server("sanic", ("sanic",)),
    Server("cheroot", ("cheroot",)),
    Server("nginx", ("nginx",)),
    Server("HAProxy", ("haproxy",), says_ready=True),
    Server("Caddy", ("caddy",), says_ready=True),
    Server("Traefik", ("traefik",), says_ready=True),
    Server("lighttpd", ("lighttpd",)),
    Server("uWSGI", ("uwsgi",), says_ready=True),
    Server("Puma", ("puma", "pumactl"), says_ready=True),  # with the gem sd_notify
    Server("PHP-FPM", ("php-fpm", "php-fpm8.2", "php-fpm8.3", "php-fpm8.4"), says_ready=True),
    Server(
        "redis", ("redis-server",), says_ready=True, takes_socket=False
    ),  # with supervised = systemd
    Server("memcached", ("memcached",), takes_socket=False),
)


def known_server(command: Sequence[str]) -> Server | None:
    """The server that a command starts, as far as its words tell."""
    words = [word.rpartition("/")[2] for word in command[:4]]
    if words and words[0].startswith("python") and "-m" in words:
        words = words[words.index("-m") + 1 :]
    first = words[0] if words else ""
    return next((server for server in SERVERS if first in server.commands), None)
