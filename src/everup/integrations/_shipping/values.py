"""Values of the tables that ship: addresses, hosts, fingerprints, namespaces; and what is expected
of each. Pure."""

import re
from collections.abc import Iterable
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, WithJsonSchema


def _form(pattern: str, expected: str) -> AfterValidator:
    """Who tells what is expected where a string has another form."""
    form = re.compile(pattern)

    def check(value: str) -> str:
        if not form.fullmatch(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


def _like(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


_URL: Final = r"https?://[^/?#@\s]+(/[^?#@\s]*)?"
_HOST: Final = r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]/@]+)(:[0-9]{1,5})?"
_FINGERPRINT: Final = r"([0-9A-Fa-f]{2}:?){32}"
_NAMESPACE: Final = r"[a-z0-9_]{1,100}"
_SPACE: Final = r"[a-z0-9_-]{1,100}"
_URL_HELP: Final = 'an address like "https://search:9200", without name and password'
_HOST_HELP: Final = 'a host like "logs:5044", "10.0.0.7" or "[::1]:5044"'
_FINGERPRINT_HELP: Final = "the SHA-256 of a certificate: 64 hexadecimal digits"
_SPACE_HELP: Final = "the id of a space, as in its address: a to z, 0 to 9, _ and -"

Url = Annotated[str, _form(_URL, _URL_HELP), _like(_URL)]
Host = Annotated[str, _form(_HOST, _HOST_HELP), _like(_HOST)]
Fingerprint = Annotated[str, _form(_FINGERPRINT, _FINGERPRINT_HELP), _like(_FINGERPRINT)]
Namespace = Annotated[str, _form(_NAMESPACE, "1 to 100 of a to z, 0 to 9 and _"), _like(_NAMESPACE)]
Space = Annotated[str, _form(_SPACE, _SPACE_HELP), _like(_SPACE)]


def in_the_open(urls: Iterable[str]) -> list[str]:
    """Give the addresses that are neither encrypted nor of this machine."""
    return [url for url in urls if url.startswith("http:") and not _is_here(url)]


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
