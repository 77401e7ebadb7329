"""Who may look and act in the console: links that are good once, and the sessions they begin.

Pure: secrets and the time come as arguments. What is kept of a secret is its SHA-256.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

TICKET_S: Final = 120.0
"""A link has to be opened within this time."""
SESSION_S: Final = 12 * 3600.0
"""A session ends after this time, however much it is used."""
MOST_TICKETS: Final = 8
MOST_SESSIONS: Final = 32
"""The oldest makes way."""


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of a session."""

    user: str
    until: float
    """Monotonic seconds."""
    token: str
    """SHA-256 of the second secret, which a page keeps and a cookie does not carry."""


class Sessions:
    """Every link and session that is good.

    Invariant: at most ``MOST_TICKETS`` links and ``MOST_SESSIONS`` sessions; a link begins one
    session at most.
    """

    def __init__(self) -> None:
        self._tickets: dict[str, tuple[str, float]] = {}
        self._sessions: dict[str, Session] = {}

    def ticket(self, secret: str, user: str, now: float) -> None:
        """Make a link good, once."""
        self._drop_old(now)
        self._tickets[digest(secret)] = (user, now + TICKET_S)
        while len(self._tickets) > MOST_TICKETS:
            del self._tickets[next(iter(self._tickets))]

    def redeem(self, secret: str, key: str, token: str, now: float) -> Session | None:
        """Begin a session with these two secrets; None: the link is not good, or no longer."""
        self._drop_old(now)
        found = self._tickets.pop(digest(secret), None)
        if found is None:
            return None
        session = Session(found[0], now + SESSION_S, digest(token))
        self._sessions[digest(key)] = session
        while len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session

    def find(self, key: str, token: str, now: float) -> Session | None:
        """Give the session that these two secrets belong to; None: there is none, or no longer."""
        found = self._sessions.get(digest(key))
        if found is None or found.until <= now:
            return None
        return found if hmac.compare_digest(found.token, digest(token)) else None

    def close(self, key: str, token: str, now: float) -> bool:
        """End a session. False: there is none."""
        if self.find(key, token, now) is None:
            return False
        del self._sessions[digest(key)]
        return True

    def _drop_old(self, now: float) -> None:
        self._tickets = {k: v for k, v in self._tickets.items() if v[1] > now}
        self._sessions = {k: v for k, v in self._sessions.items() if v.until > now}

    # -- over the death of an engine

    def dump(self) -> bytes:
        """All of it; no secret can be read from it."""
        sessions = {k: [s.user, s.until, s.token] for k, s in self._sessions.items()}
        return json.dumps({"tickets": self._tickets, "sessions": sessions}).encode()

    @classmethod
    def load(cls, data: bytes) -> "Sessions":
        """Read what ``dump`` gave; without any where that is damaged."""
        fresh = cls()
        try:
            found = json.loads(data)
            tickets = {str(k): (str(u), float(t)) for k, (u, t) in found["tickets"].items()}
            sessions = {
                str(k): Session(str(user), float(until), str(token))
                for k, (user, until, token) in found["sessions"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return fresh
        fresh._tickets, fresh._sessions = tickets, sessions
        return fresh


def digest(secret: str) -> str:
    """Give what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()
