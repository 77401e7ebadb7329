"""TLS with a pre-shared key, as Zabbix' server and agent speak it. Python can since 3.13."""

import ssl
from typing import Any, Final

_BYTES: Final = range(16, 257)
"""How long a key may be."""


def client(identity: str, key: str) -> ssl.SSLContext:
    """Give a context to connect with a key of hexadecimal digits. Raises ``ValueError`` with what
    is wrong with the key, and ``RuntimeError`` where this Python has no such thing."""
    secret = _secret(key)
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # who does not know the key gets through no handshake
    context.set_psk_client_callback(lambda _hint: (identity, secret))
    made: ssl.SSLContext = context
    return made


def server(identity: str, key: str) -> ssl.SSLContext:
    """Give a context to be asked by who knows the key. Raises as ``client``."""
    secret = _secret(key)
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # No key for others: the handshake fails, as with a wrong one.
    context.set_psk_server_callback(lambda asked: secret if asked == identity else b"")
    made: ssl.SSLContext = context
    return made


def _context(protocol: int) -> Any:
    context: Any = ssl.SSLContext(protocol)
    if not hasattr(context, "set_psk_client_callback"):
        raise RuntimeError("Python 3.13 or later is needed for TLS with a pre-shared key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    return context


def _secret(key: str) -> bytes:
    try:
        secret = bytes.fromhex(key)
    except ValueError:
        secret = b""
    if len(secret) not in _BYTES:
        raise ValueError("the file of psk_file must hold 32 to 512 hexadecimal digits")
    return secret
