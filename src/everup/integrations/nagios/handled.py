"""What Nagios' event handler tells everup: how it is signed, what it means, what is still so.

Pure, of the standard library alone: the handler itself is to start quickly.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from everup.model.display import shown_line

MOST_LINE_BYTES: Final = 8192
WINDOW_S: Final = 30.0
"""So old, or so far ahead, a line may be: both ends are on one machine, and have one clock."""
MOST_NONCES: Final = 10_000
MOST_KEPT: Final = 1000
"""Services of Nagios that are told to fail at a time."""
SAYS: Final = "fails, as Nagios says: "
OVER: Final = "Nagios says that it is over"
MACHINE: Final = "machine"
_WORD: Final = "everup-nagios-1"
_LINE: Final = re.compile(rf"{_WORD} (\d{{1,16}}) ([0-9a-f]{{32}}) ([0-9a-f]{{64}}) (\{{.*\}})")
_ENDS_AS_INSTANCE: Final = re.compile(r"\.\d+$")
_MOST_TEXT: Final = 300
_MOST_NAME: Final = 200
_FAILING: Final = ("CRITICAL", "DOWN", "UNREACHABLE")
_FINE: Final = ("OK", "WARNING", "UP")


class RefusedError(Exception):
    """A line is not taken; the text says why, to who sent it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One run of the handler, by Nagios' macros."""

    host: str
    service: str
    """"": the host itself."""
    state: str
    type: str = "HARD"
    attempt: int = 1
    text: str = ""
    about: str = ""
    """The service of everup that it is about, where the handler was told."""

    @property
    def failing(self) -> bool | None:
        """Tell whether it fails; None: nothing is to be done about it. The first soft attempt is
        waited out, UNKNOWN says nothing of the service, and WARNING serves."""
        if self.state in _FINE:
            return False
        if self.state in _FAILING and (self.type == "HARD" or self.attempt >= 2):
            return True
        return None


def line(event: Event, secret: str, at: float, nonce: str) -> bytes:
    """Write the signed line. ``nonce``: 32 hexadecimal digits, never used before."""
    head = f"{int(at * 1000)} {nonce}"
    body = json.dumps(asdict(event))
    return f"{_WORD} {head} {_signature(secret, head, body)} {body}\n".encode()


def _signature(secret: str, head: str, body: str) -> str:
    data = f"{_WORD} {head} {body}".encode()
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


class Reader:
    """Reads lines of who knows the secret, each once."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._nonces: dict[str, float] = {}
        """With the time up to which each is remembered, oldest first."""

    def read(self, data: bytes, now: float) -> Event:
        """Give what a line says. Raises ``RefusedError``."""
        match = _LINE.fullmatch(data.decode("utf-8", "replace").rstrip("\r\n"))
        if match is None:
            raise RefusedError("this is no line of everup-nagios-handler")
        at, nonce, signature, body = match.groups()
        if not hmac.compare_digest(signature, _signature(self._secret, f"{at} {nonce}", body)):
            raise RefusedError("the signature is wrong: is the secret the same?")
        if abs(now - int(at) / 1000) > WINDOW_S:
            raise RefusedError("it is too old, or from the future: is it one machine, one clock?")
        while self._nonces and next(iter(self._nonces.values())) < now:
            del self._nonces[next(iter(self._nonces))]
        if nonce in self._nonces:
            raise RefusedError("it was sent before")
        if len(self._nonces) >= MOST_NONCES:
            raise RefusedError("too many at once")
        self._nonces[nonce] = now + 2 * WINDOW_S
        return _event(body)


def _event(body: str) -> Event:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError("what is signed is no JSON") from None
    texts = {f.name: found.get(f.name, "") for f in fields(Event) if f.name != "attempt"}
    attempt = found.get("attempt", 1)
    if not all(isinstance(text, str) for text in texts.values()) or type(attempt) is not int:
        raise RefusedError("what is signed has another shape")
    names = {key: _cut(text, _MOST_NAME) for key, text in texts.items() if key != "text"}
    if not names["host"] or not names["state"]:
        raise RefusedError("host and state are missing")
    return Event(**names, text=_cut(texts["text"], _MOST_TEXT), attempt=attempt)


def _cut(text: str, most: int) -> str:
    plain = shown_line(text.replace("\t", " ")).strip()
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


class Failing:
    """What Nagios says is failing, by the subject that it is about in everup.

    Invariant: a subject is there as long as one service of Nagios that is about it fails.
    """

    def __init__(self, kept: Any = None) -> None:
        """``kept``: what ``as_kept`` gave, from a file that may hold anything."""
        self._of: dict[str, dict[str, str]] = {}
        for subject, rows in (kept if isinstance(kept, dict) else {}).items():
            told = isinstance(rows, dict) and all(isinstance(text, str) for text in rows.values())
            if told and rows and len(self._of) < MOST_KEPT:
                self._of[str(subject)] = {str(key): text for key, text in rows.items()}

    def as_kept(self) -> Mapping[str, Mapping[str, str]]:
        """Give what is to outlive this process, as JSON can hold it."""
        return self._of

    def take(self, event: Event, host: str, services: Collection[str]) -> tuple[str, str] | None:
        """Take one event. Gives its subject and what is the matter with that now ("": nothing that
        this one knows of); None where it changes nothing. ``host``: what Nagios calls this machine.
        Raises ``RefusedError``."""
        failing = event.failing
        if failing is None:
            return None
        if failing and event.about and event.about not in services:
            known = ", ".join(sorted(services)[:20]) or "none"
            raise RefusedError(f"there is no service {event.about}; there are: {known}")
        subject = _subject(event, host, services)
        key = f"{event.host}/{event.service}" if event.service else event.host
        rows = self._of.get(subject, {})
        if failing:
            if key not in rows and sum(map(len, self._of.values())) >= MOST_KEPT:
                raise RefusedError(f"{MOST_KEPT} services of Nagios fail already")
            self._of[subject] = rows | {key: event.text or event.state}
        elif key in rows:
            self._of[subject] = {k: text for k, text in rows.items() if k != key}
            if not self._of[subject]:
                del self._of[subject]
        elif rows:
            return None
        left = self._of.get(subject)
        return subject, _text(left) if left else ""


def _subject(event: Event, host: str, services: Collection[str]) -> str:
    if event.about:
        return event.about
    if event.host == host:
        return MACHINE
    # "web" and "10.0.0.1" would be taken for a service, and an instance of one.
    mistaken = event.host in services or _ENDS_AS_INSTANCE.search(event.host)
    return f"{event.host} (host)" if mistaken else event.host


def _text(rows: Mapping[str, str]) -> str:
    (key, said), *more = rows.items()
    rest = f", and {len(more)} more" if more else ""
    return f"{SAYS}{said} ({key}){rest}"
