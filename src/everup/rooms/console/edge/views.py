"""What the page asks for."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from everup.integrations.standing import Standing, of_all
from everup.model.incident import Incident
from everup.model.journal import Entry
from everup.observer.feed import Feed
from everup.rooms.console import shown
from everup.rooms.console.edge.guard import SECRETS, USER, Guard, Refused, away, body_of, decorate
from everup.rooms.console.edge.hub import Hub

MOST_STREAMS: Final = 24
MOST_OF_ONE: Final = 8
_BEAT_S: Final = 10.0
_WRITE_S: Final = 10.0
_MOST_LINES: Final = 500
_MOST_EVENTS: Final = 300
_SEARCHED: Final = 5000
_AROUND_S: Final = 30.0
_TIMELINE: Final = 300
_OF_SERVICE: Final = 60
_ACT: Final = ("command", "target", "number", "why", "for_s")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class Views:
    """The requests of one console."""

    def __init__(self, feed: Feed, hub: Hub, guard: Guard) -> None:
        self._feed = feed
        self._hub = hub
        self._guard = guard
        self._streams: dict[str, int] = {}

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answer what is known by name; the rest is not there."""
        router.add_post("/api/login", self.login)
        router.add_post("/api/logout", self.logout)
        router.add_post("/api/act", self.act)
        router.add_get("/api/me", self.me)
        router.add_get("/api/stream", self.stream)
        router.add_get("/api/service/{name}", self.service)
        router.add_get("/api/output/{name}", self.output)
        router.add_get("/api/incident/{number}", self.incident)
        router.add_get("/api/events", self.events)
        router.add_get("/healthz/{name}", self.healthz)

    # -- sessions

    async def login(self, request: web.Request) -> web.Response:
        """Begin a session by a link that is good once."""
        ticket = (await body_of(request)).get("ticket")
        if not isinstance(ticket, str) or not 0 < len(ticket) <= 100:
            raise Refused(400, "ticket: expected the one of the link")
        self._guard.meet_stranger()
        try:
            found = await self._feed.console("redeem", {"ticket": ticket})
        except PermissionError as refused:
            raise Refused(403, str(refused), "another one: everup console") from None
        except (OSError, ValueError):
            raise away() from None
        answer = _json({"token": found["token"], "user": found["user"]})
        answer.set_cookie(
            self._guard.cookie, found["session"], path="/", httponly=True, samesite="Strict",
            max_age=int(found["left_s"]),
        )  # fmt: skip
        return answer

    async def logout(self, request: web.Request) -> web.Response:
        """End the session."""
        secrets = request[SECRETS]
        self._guard.forget(secrets["session"], secrets["token"])
        await self._bring("close", secrets)
        answer = _json({})
        answer.del_cookie(self._guard.cookie, path="/", httponly=True, samesite="Strict")
        return answer

    async def me(self, request: web.Request) -> web.Response:
        """Say who is signed in."""
        return _json({"user": request[USER]})

    async def act(self, request: web.Request) -> web.Response:
        """Have done what a person asks, in their own name."""
        body = await body_of(request)
        known: dict[str, Any] = {key: body[key] for key in _ACT if key in body}
        if known.get("command") in ("approve", "deny"):
            self._still_proposed(known.get("number"), body.get("proposal"))
        done = await self._bring("act", known | request[SECRETS])
        self._hub.wake()
        return _json(dict(done))

    def _still_proposed(self, number: Any, text: Any) -> None:
        """Nobody is to approve what they have not read."""
        found = next((i for i in self._feed.incidents() if i.number == number), None)
        if found is None or not found.proposal or shown.clean(found.proposal) != text:
            raise Refused(409, f"everup proposes something else by now for incident {number!r:.20}")

    async def _bring(self, what: str, body: dict[str, Any]) -> Any:
        try:
            return await self._feed.console(what, body)
        except PermissionError as refused:
            raise Refused(401, str(refused), "open the link of: everup console") from None
        except ValueError as refused:
            raise Refused(409, shown.clean(str(refused))) from None
        except OSError:
            raise away() from None

    # -- what is new

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send everything, then what changes, as server-sent events, until the viewer goes."""
        who = request[SECRETS]["session"]
        if sum(self._streams.values()) >= MOST_STREAMS or self._streams.get(who, 0) >= MOST_OF_ONE:
            raise Refused(429, "too many pages look at this console", "close one of them")
        self._streams[who] = self._streams.get(who, 0) + 1
        self._hub.viewers += 1
        try:
            return await self._send(request)
        finally:
            self._hub.viewers -= 1
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]

    async def _send(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        decorate(response)
        await response.prepare(request)
        await self._hub.look()
        # Too slow, gone, or not signed in any more: the page asks again, and is told.
        with contextlib.suppress(TimeoutError, ConnectionError, Refused):
            await self._tell(request, response)
        return response

    async def _tell(self, request: web.Request, response: web.StreamResponse) -> None:
        version, secrets = -1, request[SECRETS]
        while True:
            data, version = self._hub.since(version), self._hub.version
            await asyncio.wait_for(response.write(b"data: " + data + b"\n\n"), _WRITE_S)
            while not await self._hub.wait(version, _BEAT_S):
                await asyncio.wait_for(response.write(b": alive\n\n"), _WRITE_S)
            await self._guard.whose(secrets["session"], secrets["token"])

    # -- one thing

    async def service(self, request: web.Request) -> web.Response:
        """Give one service, whole."""
        name = request.match_info["name"]
        found, _ = await self._find(name)
        entries = await self._read([("service", name), ("n", str(_OF_SERVICE))])
        now = time.time()
        return _json(
            {
                "row": self._hub.row(name),
                "instances": [shown.instance(i, now) for i in found["instances"]],
                "outgoing": [shown.instance(i, now) for i in found["outgoing"]],
                "config": shown.config_of(self._feed.config(), name).split("\n"),
                "events": _plain(entries),
            }
        )

    async def output(self, request: web.Request) -> web.Response:
        """Give the newest lines that a service has said."""
        name = request.match_info["name"]
        await self._find(name.partition(".")[0] if "." in name else name)
        try:
            lines = await self._feed.output(name, _MOST_LINES)
        except ValueError as refused:
            raise Refused(404, shown.clean(str(refused))) from None
        except OSError:
            raise away() from None
        out = [
            {
                "at": round(line["time_ns"] / 1e9, 3),
                "slot": line["slot"],
                "stream": line["stream"],
                "text": _COLOUR.sub("", line["text"]),
            }
            for line in lines
        ]
        return _json({"lines": out})

    async def incident(self, request: web.Request) -> web.Response:
        """Give one incident, with what happened while it lasted."""
        number = request.match_info["number"]
        found = next((i for i in self._feed.incidents() if str(i.number) == number), None)
        if found is None:
            raise Refused(404, f"there is no incident {number!r:.20}")
        entries = await self._read(_span(found, time.time()))
        about = [e for e in entries if _belongs(e, found)]
        return _json({"incident": shown.incident(found), "timeline": _plain(about[-_TIMELINE:])})

    async def events(self, request: web.Request) -> web.Response:
        """Search the journal by kind, subject and text."""
        query = [("n", str(_SEARCHED))]
        if kind := request.query.get("kind", ""):
            query.append(("kind", kind if "." in kind else f"{kind}.*"))
        if subject := request.query.get("subject", ""):
            query.append(("service", subject))
        if before := request.query.get("before", ""):
            query.append(("until", _iso(before)))
        text = request.query.get("text", "").lower()[:200]
        found = [shown.clean(shown.entry(entry)) for entry in await self._read(query)]
        if text:
            found = [e for e in found if text in f"{e['kind']} {e['subject']} {e['words']}".lower()]
        return _json({"events": found[-_MOST_EVENTS:]})

    async def healthz(self, request: web.Request) -> web.Response:
        """Say to a balancer whether a service serves: 200, or 503."""
        name = request.match_info["name"]
        status = await self._hub.status()
        if status is None:
            return web.Response(status=503, text="unknown\n")
        for service in status["services"]:
            if service["name"] == name:
                ready = int(service["ready"]) > 0
                return web.Response(
                    status=200 if ready else 503, text="ok\n" if ready else "down\n"
                )
        return web.Response(status=404, text="there is no such service\n")

    async def _find(self, name: str) -> tuple[Any, Standing]:
        status = await self._hub.status()
        if status is None:
            raise away()
        for service, standing in zip(status["services"], of_all(status), strict=True):
            if service["name"] == name:
                return service, standing
        raise Refused(404, f"there is no service {name!r:.80}")

    async def _read(self, query: Sequence[tuple[str, str]]) -> Sequence[Entry]:
        try:
            return await self._feed.select(query)
        except ValueError as refused:
            raise Refused(400, shown.clean(str(refused))) from None
        except OSError:
            raise away() from None


def _json(value: Any) -> web.Response:
    """Give an answer in which every text is harmless to show."""
    return web.json_response(shown.clean(value))


def _plain(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [shown.clean(shown.entry(entry)) for entry in entries]


def _span(incident: Incident, now: float) -> list[tuple[str, str]]:
    until = now if incident.resolved_at is None else incident.resolved_at
    begin, end = incident.since - _AROUND_S, until + _AROUND_S
    return [("since", _iso(str(begin))), ("until", _iso(str(end))), ("n", str(_SEARCHED))]


def _iso(seconds: str) -> str:
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise Refused(400, f"{seconds!r:.40} is no time in seconds") from None


def _belongs(entry: Entry, incident: Incident) -> bool:
    if entry.kind.startswith(("incidents.", "recover.")):
        return entry.payload.get("number") == incident.number
    if entry.kind.startswith("notify."):
        return str(incident.number) in (entry.subject, str(entry.payload.get("number")))
    names = {*incident.services, incident.subject}
    return bool(names & {entry.subject.rpartition(".")[0] or entry.subject, entry.subject})
