"""TLS contexts of secrets that were read before root's rights were given up."""

import os
import ssl

from everup.observer.feed import Feed


def server_context(feed: Feed, cert: str, key: str, client_ca: str | None) -> ssl.SSLContext:
    """Make what a server needs. With ``client_ca``, clients must show a certificate of it.

    Raises ``OSError`` where a file could not be read or does not fit, with its name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    both = feed.secret_bytes(cert) + b"\n" + feed.secret_bytes(key)
    # Only a file can be loaded from; this one is in memory, and nobody else's.
    file = os.memfd_create("everup-tls", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as written:
            written.write(both)
        try:
            context.load_cert_chain(f"/proc/self/fd/{file}", password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise OSError(f"{cert}, {key}: {_words(error)}") from None
    finally:
        os.close(file)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        load_authority(feed, context, client_ca)
    return context


def load_authority(feed: Feed, context: ssl.SSLContext, path: str) -> None:
    """Have a context trust the authority whose certificate is in a file. Raises ``OSError``."""
    try:
        context.load_verify_locations(cadata=feed.secret_bytes(path).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"{path}: {_words(error)}") from None


def _no_password() -> str:
    raise ValueError("the key has a password; everup cannot be asked for one")


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error)
