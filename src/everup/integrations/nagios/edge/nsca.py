"""Passive results by NSCA: a connection for each bunch of them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from everup.integrations.delivery import ChannelError
from everup.integrations.nagios import nsca
from everup.integrations.nagios.command import Result
from everup.integrations.nagios.edge.words import words
from everup.integrations.nagios.nsca import Encrypt, Method

_CONNECT_S: Final = 5.0
_WHOLE_S: Final = 15.0
_MOST_AT_ONCE: Final = 100
Ciphers = Callable[[bytes, bytes], Encrypt]
"""Begins a connection's encryption with its IV and the password."""


def ciphers(method: Method) -> Ciphers:
    """Give what encrypts by that method. Raises ``OSError`` where a library is missing."""
    if method == "none":
        return lambda _iv, _password: lambda data: data
    if method == "xor":
        return nsca.xor
    try:
        from everup.integrations.nagios import ciphers as loaded
    except ImportError as error:
        text = f'method = "{method}" needs a library: pip install "everup[nsca]" ({error})'
        raise OSError(text) from None
    return loaded.triple_des if method == "3des" else loaded.rijndael_128


class Daemon:
    """Hands results to one NSCA daemon.

    That acknowledges nothing. It is believed to have taken what was sent once it has closed the
    connection after our end of it; what it does not understand it closes with more of it unread,
    which is told.
    """

    def __init__(self, address: tuple[str, int], begin: Ciphers, password: bytes) -> None:
        self._address = address
        self._begin = begin
        self._password = password

    @property
    def name(self) -> str:
        return f"nsca {self._address[0]}:{self._address[1]}"

    async def send(self, items: Sequence[Result]) -> int:
        """Send the first ones. Raises ``ChannelError``."""
        bunch = items[:_MOST_AT_ONCE]
        connected = said = False
        try:
            async with asyncio.timeout(_WHOLE_S):
                async with asyncio.timeout(_CONNECT_S):
                    reader, writer = await asyncio.open_connection(*self._address)
                connected = True
                try:
                    hello = nsca.hello(await reader.readexactly(nsca.HELLO_BYTES))
                    said = True
                    encrypt = self._begin(hello.iv, self._password)
                    # In one piece: of what it refuses more is unread then, and we hear of it.
                    packets = []
                    for item in bunch:
                        packets.append(encrypt(nsca.packet(item, hello.at)))
                        await asyncio.sleep(0)  # 3DES takes a millisecond for each
                    writer.write(b"".join(packets))
                    await writer.drain()
                    writer.write_eof()
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise ChannelError("it does not answer in time") from None
        except ValueError as error:
            raise ChannelError(str(error)) from None
        except (OSError, EOFError) as error:
            raise ChannelError(_words(error, connected=connected, said=said)) from None
        return len(bunch)


def _words(error: OSError | EOFError, *, connected: bool, said: bool) -> str:
    if said:
        return "it closes the connection on what it is sent: is the password the same, the method?"
    if connected:
        return "it closes the connection at once: does it let this host in?"
    return words(error) if isinstance(error, OSError) else "it closes the connection"
