"""The ciphers of NSCA that need a library. Importing this loads it; raises ``ImportError``."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from everup.integrations.nagios.nsca import Encrypt

try:  # where they went in cryptography 43 and 47
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES
try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB8
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB8


def triple_des(iv: bytes, password: bytes) -> Encrypt:
    """Give method 3, as libmcrypt does it: CFB of 8 bits, the password filled up with zeros."""
    return Cipher(TripleDES(_key(password, 24)), CFB8(iv[:8])).encryptor().update


def rijndael_128(iv: bytes, password: bytes) -> Encrypt:
    """Give method 14: AES with a key of 256 bits, else as the one above."""
    return Cipher(algorithms.AES(_key(password, 32)), CFB8(iv[:16])).encryptor().update


def _key(password: bytes, size: int) -> bytes:
    return password[:size].ljust(size, b"\0")
