"""A target made ready: addresses parsed, request bytes written, once instead of at every round."""

import base64
import re
import socket
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from everup import __version__
from everup.adapters.probes._grpc import GrpcCheck
from everup.adapters.probes._resolve import Address
from everup.adapters.probes._response import Check
from everup.adapters.probes._tls import Files
from everup.adapters.probes._words import one_line
from everup.model.signal import ProbeTarget
from everup.model.units import format_duration

_STATUS: Final = re.compile(r"\s*(\d{3})\s*(?:-\s*(\d{3})\s*)?")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class Plan:
    """How one target is asked. With ``error`` set it cannot be, and every round says so."""

    __slots__ = (
        "address",
        "certificates",
        "check",
        "error",
        "family",
        "name",
        "request",
        "server_name",
        "source",
        "target",
        "timeout_s",
        "timeout_words",
        "tls",
        "traffic_class",
    )

    def __init__(self, target: ProbeTarget) -> None:
        self.target = target
        self.timeout_s = target.probe.timeout
        self.timeout_words = format_duration(target.probe.timeout)
        self.error = ""
        self.family = 0
        self.address: Address | str | None = None
        """None: ``name`` is to be resolved first."""
        self.name: tuple[str, int] = ("", 0)
        self.source = (target.source, 0) if target.source else None
        self.traffic_class = target.traffic_class
        self.request = b""
        self.check: Check | GrpcCheck | None = None
        """None: a connection is all that is asked for."""
        self.tls: ssl.SSLContext | None = None
        self.certificates: Files | None = None
        """What ``tls`` is made of first, where the config names files."""
        self.server_name = ""


def make_plan(target: ProbeTarget, contexts: Callable[[bool], ssl.SSLContext]) -> Plan:
    """The plan for a target; what is wrong with the target is in the plan's ``error``."""
    plan = Plan(target)
    if target.probe.exec is not None:
        return plan
    try:
        if target.probe.http is not None:
            _plan_http(plan, target, contexts)
        else:
            _plan_tcp(plan, target)
        if target.probe.grpc is not None:
            check = GrpcCheck(target.probe.grpc_service)
            plan.check = check
            plan.request = check.request(_authority(plan))
    except (ValueError, OSError, ssl.SSLError) as error:
        plan.error = one_line(f"cannot be asked: {error}")
    return plan


def _plan_tcp(plan: Plan, target: ProbeTarget) -> None:
    host, port = target.host, target.port
    if not host and not target.unix:
        host, _, text = (target.probe.tcp or target.probe.grpc or "").rpartition(":")
        host, port = host.strip("[]"), int(text)
    _set_address(plan, target.unix, host, port)


def _plan_http(plan: Plan, target: ProbeTarget, contexts: Callable[[bool], ssl.SSLContext]) -> None:
    probe = target.probe
    url = urlsplit(target.url or probe.http or "")
    secure = url.scheme == "https"
    if url.scheme not in ("", "http", "https"):
        raise ValueError(f"scheme {url.scheme!r} is neither http nor https")
    if url.hostname:
        host, port = url.hostname, url.port or (443 if secure else 80)
    else:
        host, port = target.host, target.port or (443 if secure else 80)
    _set_address(plan, target.unix, host, port)
    if secure:
        if probe.tls_ca or probe.tls_cert:
            files = (probe.tls_ca, probe.tls_cert, probe.tls_key)
            plan.certificates = Files(probe.tls_verify, *(path or "" for path in files))
        else:
            plan.tls = contexts(probe.tls_verify)
        plan.server_name = host or "localhost"
    plan.request = _request(target, url, host, port)
    status = _STATUS.fullmatch(probe.status)
    if not status:
        raise ValueError(f"status {probe.status!r} is no range like 200-399")
    low, high = int(status[1]), int(status[2] or status[1])
    try:
        pattern = re.compile(probe.body) if probe.body is not None else None
    except re.error as error:
        raise ValueError(f"body {probe.body!r} is no regular expression: {error}") from error
    head_only = probe.method.upper() == "HEAD"
    plan.check = Check(low, high, pattern, head_only, probe.redirects, _own_names(plan, url, host))


def _own_names(plan: Plan, url: SplitResult, host: str) -> frozenset[str]:
    """What the service may call itself in a redirect: as it was asked, or this machine."""
    names = {host, url.hostname or "localhost"}
    for name, value in plan.target.probe.headers.items():
        if name.lower() == "host":
            names.add(urlsplit(f"//{value.strip()}").hostname or "")
    if names & _LOOPBACK:
        names |= _LOOPBACK
    return frozenset(name.rstrip(".").lower() for name in names if name)


def _authority(plan: Plan) -> str:
    """As what a gRPC server is asked."""
    if plan.address is None or isinstance(plan.address, str):
        return plan.name[0] or "localhost"
    host, port = plan.address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _set_address(plan: Plan, unix: str, host: str, port: int) -> None:
    if unix:
        plan.family = socket.AF_UNIX
        plan.address = "\0" + unix[1:] if unix[0] == "@" else unix
        return
    if not host or not 0 < port < 65536:
        raise ValueError(f"no address in host {host!r}, port {port}")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        plan.family = family
        plan.address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        return
    plan.name = (host, port)


def _request(target: ProbeTarget, url: SplitResult, host: str, port: int) -> bytes:
    probe = target.probe
    if not _TOKEN.fullmatch(probe.method):
        raise ValueError(f"method {probe.method!r} is no HTTP method")
    path = quote(url.path or "/", safe="/%:@!$&'()*+,;=~")
    if url.query:
        path += "?" + quote(url.query, safe="/%:@!$&'()*+,;=~?")
    headers = {
        "host": ("Host", _host_header(url, host, port)),
        "user-agent": ("User-Agent", f"everup/{__version__}"),
        "accept": ("Accept", "*/*"),
    }
    if probe.method.upper() in _WITH_BODY:
        headers["content-length"] = ("Content-Length", "0")
    if url.username is not None:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["authorization"] = ("Authorization", "Basic " + _base64(pair))
    for name, value in probe.headers.items():
        if not _TOKEN.fullmatch(name) or any(c in value for c in "\r\n\0"):
            raise ValueError(f"header {name!r} is no HTTP header")
        headers[name.lower()] = (name, value)
    headers["connection"] = ("Connection", "close")
    lines = [f"{probe.method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.values())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _host_header(url: SplitResult, host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host or "localhost"
    if not name.isascii():
        name = name.encode("idna").decode()
    shown = url.port if url.hostname else port
    return (
        name if shown is None or shown == {"https": 443}.get(url.scheme, 80) else f"{name}:{shown}"
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
