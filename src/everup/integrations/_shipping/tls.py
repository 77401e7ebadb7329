"""TLS to the other system, from what the config names. Contexts only; no connection is made."""

import os
import ssl
from collections.abc import Callable


def client_context(
    secret_bytes: Callable[[str], bytes],
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> ssl.SSLContext:
    """Give the context of a client that verifies the server, by ``ca_file`` or the system's
    authorities, and shows ``cert_file`` with the key in ``key_file`` or beside it.

    Raises ``OSError`` where a file cannot be read, ``ValueError`` where it holds none of these.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        try:
            context = ssl.create_default_context(cadata=secret_bytes(ca_file).decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"{ca_file} holds no certificates in PEM") from error
    if cert_file is not None:
        parts = secret_bytes(cert_file), secret_bytes(key_file) if key_file else b""
        # OpenSSL reads a key from a path alone: this one leads to memory, and to nobody else's.
        held = os.memfd_create("everup-key", os.MFD_CLOEXEC)
        try:
            with open(held, "wb", closefd=False) as file:
                file.write(b"\n".join(parts))
            context.load_cert_chain(f"/proc/self/fd/{held}", password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            named = f"{cert_file} and {key_file}" if key_file else cert_file
            text = f"{named}: no certificate with its key in PEM, without a passphrase"
            raise ValueError(text) from error
        finally:
            os.close(held)
    return context
