"""How each kind of check is done. Each gives what was found, or raises ``WrongError``."""

import asyncio
import os
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from everup.model.display import shown_line
from everup.model.units import format_duration, format_size
from everup.observer.running import RunError, run
from everup.rooms.check.config import Check

_MOST_BODY: Final = 64 << 10
_MOST_COMMAND_LINE: Final = 8 << 10
_CRITICAL: Final = 2


class WrongError(Exception):
    """The check has failed; the text says how."""


class UnknownError(Exception):
    """The check says nothing, one way or the other."""


async def check(one: Check) -> str:
    """Do a check. Raises ``WrongError``, ``UnknownError``, ``OSError``, ``TimeoutError``."""
    for way, do in _WAYS.items():
        if getattr(one, way):
            return await do(one)
    raise UnknownError("there is nothing to check")


async def _http(one: Check) -> str:
    assert one.http is not None
    context = _context(one)
    timeout = aiohttp.ClientTimeout(total=one.timeout)
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    # The client gives the connection back before it can be looked at, so it is looked at before.
    left = await _certificate_of(*_address(one.http), context, one)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
            session.get(
                one.http, allow_redirects=False, headers={"User-Agent": "everup"}
            ) as answer,
        ):
            low, _, high = one.status.partition("-")
            if not int(low) <= answer.status <= int(high or low):
                raise WrongError(f"it answers {answer.status} {answer.reason or ''}".strip())
            if one.body is not None:
                body = (await answer.content.read(_MOST_BODY)).decode("utf-8", "replace")
                found = await asyncio.to_thread(re.search, one.body, body)
                if found is None:
                    raise WrongError(f"its body does not match {one.body!r}")
            return f"it answers {answer.status}{left}"
    except aiohttp.ClientConnectorCertificateError as error:
        raise WrongError(f"its certificate is not valid: {error.certificate_error}") from None
    except aiohttp.ClientConnectorError as error:
        why = error.os_error.strerror or str(error.os_error)
        raise WrongError(f"no connection: {why}") from None
    except aiohttp.ClientError as error:
        raise WrongError(f"the answer makes no sense: {type(error).__name__}") from None


async def _tcp(one: Check) -> str:
    assert one.tcp is not None
    host, _, port = one.tcp.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
    return "it accepts"


async def _tls(one: Check) -> str:
    assert one.tls is not None
    host, _, port = one.tls.rpartition(":")
    left = await _certificate_of(host.strip("[]"), int(port), _context(one), one)
    return f"its certificate is valid{left}"


def _address(url: str) -> tuple[str, int]:
    """Host and port of a URL with TLS; port 0 for one without."""
    parts = urlsplit(url)
    return parts.hostname or "", (parts.port or 443) if parts.scheme == "https" else 0


async def _certificate_of(host: str, port: int, context: ssl.SSLContext, one: Check) -> str:
    """Say how long the certificate is valid that is shown there. Raises ``WrongError``."""
    if not port:
        return ""
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise WrongError(f"its certificate is not valid: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise WrongError(f"it speaks no TLS that we know: {error.reason}") from None
    try:
        return _certificate(writer.get_extra_info("peercert"), one)
    finally:
        writer.close()


def _context(one: Check) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=one.ca)


def _certificate(found: Mapping[str, Any] | None, one: Check) -> str:
    """Say how long a certificate is valid. Raises ``WrongError`` where that is too short."""
    if not found or "notAfter" not in found:
        return ""
    ends = ssl.cert_time_to_seconds(found["notAfter"])
    left = ends - time.time()
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d")
    days = f"{left / 86400:.0f} days"
    if left < one.certificate:
        raise WrongError(f"its certificate ends in {days}, on {day}")
    return f", its certificate ends in {days}"


async def _command(one: Check) -> str:
    try:
        await run(one.command, timeout_s=one.timeout)
    except RunError as error:
        if one.plugin and error.status == 1:
            return f"warning: {error}"
        if one.plugin and error.status != _CRITICAL:
            raise UnknownError(str(error)) from None
        raise WrongError(str(error)) from None
    return "it ended with status 0"


async def _file(one: Check) -> str:
    assert one.file is not None
    found = await asyncio.to_thread(os.stat, one.file)
    age_s = max(0.0, time.time() - found.st_mtime)
    age = format_duration(round(age_s))
    if one.max_age is not None and age_s > one.max_age:
        raise WrongError(f"it was last changed {age} ago")
    if one.min_size is not None and found.st_size < one.min_size:
        raise WrongError(f"it has {format_size(found.st_size)}")
    return f"it has {format_size(found.st_size)} and was changed {age} ago"


async def _process(one: Check) -> str:
    assert one.process is not None
    pids = await asyncio.to_thread(_running, re.compile(one.process))
    if not pids:
        raise WrongError(f"no process has a command line that matches {one.process!r}")
    return f"it runs: {', '.join(map(str, pids[:5]))}"


def _running(pattern: re.Pattern[str]) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                line = file.read(_MOST_COMMAND_LINE)
        except OSError:
            continue
        words = line.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        if words and pattern.search(shown_line(words)):
            found.append(int(name))
    return found


_WAYS: Final[Mapping[str, Callable[[Check], Awaitable[str]]]] = {
    "http": _http,
    "tcp": _tcp,
    "tls": _tls,
    "command": _command,
    "file": _file,
    "process": _process,
}
