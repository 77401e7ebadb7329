"""Checks of probes."""

import re
import warnings
from urllib.parse import urlsplit

from everup.config import template
from everup.config._address import check_target
from everup.config._fields import keys_of
from everup.config._normalise import PROBE_MEANS
from everup.config._problem import Findings, Path, did_you_mean
from everup.model.spec import Probe, Service, Spec

_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP_ONLY = ("method", "status", "redirects", "body", "headers", "tls_verify")
_TLS = ("tls_ca", "tls_cert", "tls_key")


def check_probes(spec: Spec, found: Findings) -> None:
    for name, service in spec.service.items():
        for kind in ("startup", "readiness", "liveness"):
            path: Path = ("service", name, "probe", kind)
            probe = getattr(service.probe, kind)
            if probe is not None and found.sound(path):
                _probe(service, probe, path, found)


def _probe(service: Service, probe: Probe, path: Path, found: Findings) -> None:
    means = [key for key in PROBE_MEANS if getattr(probe, key) is not None]
    if len(means) != 1:
        had = f"has {' and '.join(means)}" if means else "asks nothing"
        found.add(path, f"a probe needs exactly one of http, tcp, grpc and exec; this one {had}")
        return
    if probe.http is not None:
        _http(service, probe, probe.http, path, found)
    else:
        _without_effect(probe, path, found)
    if probe.tcp is not None:
        _tcp(service, probe.tcp, (*path, "tcp"), found)
    if probe.grpc is not None:
        _tcp(service, probe.grpc, (*path, "grpc"), found)
    elif probe.grpc_service:
        found.warn((*path, "grpc_service"), "has no effect: the probe is not a grpc one")
    if probe.exec is not None and probe.exec[0] == "":
        found.add((*path, "exec", 0), "the program's name is empty", value="")
    if probe.plugin != "no" and probe.exec is None:
        found.warn((*path, "plugin"), "has no effect: the probe is not an exec one")
    if probe.listener is not None:
        _listener(service, probe, probe.listener, path, found)


def _http(service: Service, probe: Probe, text: str, path: Path, found: Findings) -> None:
    place = (*path, "http")
    if text.startswith("/"):
        _needs_socket(service, place, text, found)
    else:
        _url(service, text, place, found)
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        found.add(place, "a path or URL has no spaces; write %20", value=text)
    match = _STATUS.fullmatch(probe.status)
    if match is None or (match[2] is not None and match[2] < match[1]):
        message = 'expected a status or a range, like "200" or "200-399"'
        found.add((*path, "status"), message, value=probe.status)
    if not _TOKEN.fullmatch(probe.method):
        message = 'expected an HTTP method, like "GET" or "HEAD"'
        found.add((*path, "method"), message, value=probe.method)
    for name, value in probe.headers.items():
        if not _TOKEN.fullmatch(name) or re.search(r"[\r\n\0]", value):
            found.add((*path, "headers", name), "no valid HTTP header", value=value)
    _tls(probe, text, path, found)
    if probe.body is not None:
        _body(probe.body, (*path, "body"), found)


def _tls(probe: Probe, text: str, path: Path, found: Findings) -> None:
    named = [key for key in _TLS if getattr(probe, key) is not None]
    for key in named:
        if getattr(probe, key) == "":
            found.add((*path, key), "is empty; leave it out for none", value="")
        elif not text.lower().startswith("https:"):
            found.warn((*path, key), "has no effect: the probe does not ask a URL with https")
    if probe.tls_key is not None and probe.tls_cert is None:
        found.add((*path, "tls_key"), "is the key to a tls_cert, and there is none")
    if probe.tls_ca is not None and not probe.tls_verify:
        found.warn((*path, "tls_ca"), "has no effect: tls_verify is false")


def _url(service: Service, text: str, place: Path, found: Findings) -> None:
    try:
        url = urlsplit(template.expand(text, service=service.name, replica=1, port=1))
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except template.TemplateError:
        return  # told already
    except ValueError:
        good = False
    if not good:
        message = 'expected a path, like "/healthz", or a URL with http or https'
        found.add(place, message, value=text)


def _tcp(service: Service, text: str, place: Path, found: Findings) -> None:
    if text == "listen":
        _needs_socket(service, place, text, found)
        return
    try:
        check_target(template.expand(text, service=service.name, replica=1, port=1))
    except template.TemplateError:
        return  # told already
    except ValueError:
        message = 'expected "listen" (the replica\'s own port) or host:port, like "127.0.0.1:5432"'
        found.add(place, message, value=text)


def _needs_socket(service: Service, place: Path, text: str, found: Findings) -> None:
    path: Path = ("service", service.name)
    known = found.sound((*path, "listen"), (*path, "port"))
    if known and not service.listen and service.port is None:
        message = "asks the replica's own socket, but the service has no listen and no port"
        found.add(place, message, value=text)


def _listener(service: Service, probe: Probe, name: str, path: Path, found: Findings) -> None:
    place = (*path, "listener")
    names = [listener.name for listener in service.listen]
    if not found.sound(("service", service.name, "listen")):
        return
    if name not in names:
        message = f"the service has no such listener{did_you_mean(name, names)}"
        found.add(place, message, value=name, valid=names)
    elif not ("listen" in (probe.tcp, probe.grpc) or (probe.http or "").startswith("/")):
        found.warn(place, "has no effect: the probe does not ask a listener", value=name)


def _body(text: str, place: Path, found: Findings) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        found.add(place, f"no valid regular expression: {error}", value=text)


def _without_effect(probe: Probe, path: Path, found: Findings) -> None:
    for key in (*_HTTP_ONLY, *_TLS):
        if getattr(probe, key) != keys_of(Probe)[key].default:
            found.warn((*path, key), "has no effect: the probe is not an http one")
