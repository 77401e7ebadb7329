"""The kill loop: everup's own processes are killed, and stopped for a while (SIGSTOP), at random
moments while its services work.

``Loop.run`` does it with an everup of the tests' harness and returns a ``Report``: what was killed,
what the clients saw, and everything that is not as it should be (``wrong``, empty if all is well).
Everything random comes from one seed. What one seed replays is the order of kills and commands, not
the moments: those are the machine's. Whoever is stopped goes on (SIGCONT) after its time, unless it
was killed or replaced meanwhile.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from _everup import Everup, Json, python

from load import Load, Summary

_KINDS = ("engine", "keeper", "both", "zygote")
_WEIGHTS = (10, 8, 6, 1)
_STOPPED = ("engine", "keeper", "zygote", "engine and keeper")
_STOPPED_S = (1, 2, 3, 5, 8, 13, 21, 40)
_SETTLED_S = 30.0
_GROWTH = 1.05
"""Of memory and descriptors, at most."""
_IN_A_ROW = 0.25
"""How often the next kill comes before the one before has been got over."""
_REASONS = ("instance.exited", "instance.lost", "service.wanted", "instance.failed")
_ENDS = ("instance.exited", "instance.lost", "instance.failed")

_WORKER = """
import os, random, sys, time
rng, number = random.Random(1), 0
while True:
    count = rng.choice((1, 5, 20, 100))
    lines = [b"%d %s\\n" % (n, b"x" * rng.randrange(40)) for n in range(number, number + count)]
    data = memoryview(b"".join(lines))
    cut = rng.randrange(len(data) + 1)
    for part in (data[:cut], data[cut:]):
        while part: part = part[os.write(1, part):]
    number += count
    time.sleep(count / 2000)
"""
_LOGGER = """
import os, random, sys, time
rng, numbers = random.Random(2), [0, 0]
while True:
    stream = rng.randrange(2)
    data = memoryview(b"%d %s\\n" % (numbers[stream], b"y" * rng.choice((0, 80, 700, 5000))))
    while data: data = data[os.write(1 + stream, data):]
    numbers[stream] += 1
    time.sleep(0.01)
"""


@dataclass
class Report:
    """What has happened."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    stopped_s: float = 0.0
    """How long they were to be stopped, in all."""
    slow_s: list[float] = field(default_factory=list)
    """From each stop until the API answered again."""
    commands: Counter[str] = field(default_factory=Counter)
    ups: int = 0
    refused: list[str] = field(default_factory=list)
    """What each of them said that did not start everup: it was tried again."""
    recovery_s: list[float] = field(default_factory=list)
    """From each kill until the API answered again; only those that were waited for."""
    clients: dict[str, Summary] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    restarts: Counter[str] = field(default_factory=Counter)
    """Processes started after the first one of their instance, by service."""
    events: int = 0
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Memory (KiB) and descriptors of keeper and engine, after the first kill and at the end."""
    took_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [
            ("seed", str(self.seed)),
            ("kills", ", ".join(f"{self.kills[kind]} {kind}" for kind in _KINDS)),
            (
                "stops",
                ", ".join(f"{self.stops[who]} {who}" for who in _STOPPED if self.stops[who])
                + f"; for {self.stopped_s:.0f} s",
            ),
            ("everup up after both were dead", f"{self.ups}, {len(self.refused)} refused"),
            ("commands meanwhile", ", ".join(f"{n} {c}" for c, n in self.commands.items())),
            ("seconds", f"{self.took_s:.0f}"),
        ]
        if times := sorted(self.recovery_s):
            middle, late = times[len(times) // 2], times[int(len(times) * 0.95)]
            text = f"median {middle:.2f}, p95 {late:.2f}, max {times[-1]:.2f}"
            rows.append(("s from kill to answer", text))
        if self.slow_s:
            rows.append(("s from stop to answer, at most", f"{max(self.slow_s):.2f}"))
        for name, summary in self.clients.items():
            text = f"{summary.sent} sent, {summary.failed} failed, {summary.unsent} unsent; ms "
            text += ", ".join(f"{k} {v:.0f}" for k, v in summary.latency_ms.items())
            rows.append((f"requests to {name}", text))
        rows += [(f"lines of {name}", f"{count}") for name, count in self.lines.items()]
        rows.append(
            ("restarts, all explained", ", ".join(f"{n} {s}" for s, n in self.restarts.items()))
        )
        rows.append(("events", str(self.events)))
        rows += [
            (name, f"{a} -> {b} ({b / max(a, 1) - 1:+.1%})") for name, (a, b) in self.sizes.items()
        ]
        rows += [
            ("refused", text.strip().splitlines()[-1]) for text in self.refused if text.strip()
        ]
        rows.append(("wrong", "; ".join(self.wrong) or "nothing"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def services(everup: Everup, ports: dict[str, int]) -> dict[str, Json]:
    """Those that nobody asks to restart, one that is rolled, one that is stopped and started."""
    probe = {"interval": "200ms", "timeout": "5s", "failure_threshold": 10}
    readiness = {"readiness": {"http": "/readyz", **probe}}
    log = {"max_size": "2M", "files": 1000}
    return {
        "web": everup.server(listen=f"127.0.0.1:{ports['web']}", replicas=2, probe=readiness),
        "single": everup.server(
            listen=f"127.0.0.1:{ports['single']}", probe={"liveness": {"http": "/healthz", **probe}}
        ),
        "worker": {"command": python(_WORKER), "log": log},
        "logger": {"command": python(_LOGGER), "log": log | {"max_line": "1K"}},
        "roll": everup.server(
            listen=f"127.0.0.1:{ports['roll']}", replicas=2, probe=readiness, drain_timeout="10s"
        ),
        "other": everup.server(replicas=2, hooks={"post_start": ["true"], "pre_stop": ["true"]}),
    }  # fmt: skip


UNTOUCHED = ("web", "single", "worker", "logger")


class Loop:
    """One loop; ``run`` is called once."""

    def __init__(
        self, everup: Everup, *, kills: int, seed: int, rate: float, stops: float = 0.0
    ) -> None:
        """``stops``: this share of the kills is a stop instead."""
        self.everup = everup
        self.kills = kills
        self.stops = stops
        self.held: list[tuple[float, int]] = []
        """Until when whom: (monotonic, pidfd)."""
        self.rate = rate
        self.rng = random.Random(seed)
        self.report = Report(seed)
        self.before: dict[str, Json] = {}

    def run(self) -> Report:
        everup, report = self.everup, self.report
        ports = {name: everup.port() for name in ("web", "single", "roll")}
        everup.up(services(everup, ports))
        everup.cli("restart", "roll")  # from now on it has the lane that its rollouts need
        self.before = everup.instances()
        rates = {"web": self.rate, "single": self.rate / 10, "roll": self.rate / 5}
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            loads = {
                name: stack.enter_context(
                    Load(
                        ports[name],
                        rate=rate,
                        kept=0,
                        timeout_s=20.0,
                        max_in_flight=5000,
                        limit_s=900.0 + 60.0 * self.kills,
                    )
                )
                for name, rate in rates.items()
            }
            self.kill()
            self.settle()
            sizes = self.sizes()
            for number in range(2, self.kills + 1):
                if self.rng.random() >= _IN_A_ROW:
                    self.answered()
                self.command()
                if self.rng.random() < self.stops:
                    self.stop()
                else:
                    self.kill()
                if number % 100 == 0:
                    print(f"{number} of {self.kills}, wrong: {report.wrong}", flush=True)
            self.go_on(everybody=True)
            self.settle()
            everup.cli("scale", "other", "2")
            everup.cli("start", "other")
            self.settle()
            for name, (memory, fds) in self.sizes().items():
                report.sizes[f"{name} KiB"] = sizes[name][0], memory
                report.sizes[f"{name} descriptors"] = sizes[name][1], fds
            report.wrong += [
                f"{name}: {before} at first, {after} at the end"
                for name, (before, after) in report.sizes.items()
                if after > before * _GROWTH
            ]
            report.clients = {name: load.stop() for name, load in loads.items()}
        report.took_s = time.monotonic() - began
        self.check_instances()
        everup.cli("stop", "worker", "logger")
        self.check_journal()
        self.check_output("worker.1", "stdout")
        for stream in ("stdout", "stderr"):
            self.check_output("logger.1", stream)
        return report

    # -- what is done to it

    def kill(self) -> None:
        """One kill, at a moment that follows the last command, or whatever goes on."""
        time.sleep(self.rng.choice((0.0, 0.02, 0.1, 0.3)) * self.rng.random())
        who = self.rng.choices(_KINDS, _WEIGHTS)[0]
        own = self.everup.own()
        victims = [p for p in (own.keeper, own.engine) if p]
        if who != "both":
            victims = [getattr(own, who)]
        self.killed_at = time.monotonic()
        self.stopped_one = False
        for pid in self.rng.sample(victims, len(victims)):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        self.report.kills[who] += 1

    def stop(self) -> None:
        """SIGSTOP for a while; others may be killed and stopped meanwhile."""
        own = self.everup.own()
        who = self.rng.choice(_STOPPED)
        for_s = self.rng.choice(_STOPPED_S)
        self.killed_at = time.monotonic()
        self.stopped_one = True
        for name in who.split(" and "):
            if not (pid := getattr(own, name)):
                continue
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                self.held.append((self.killed_at + for_s, handle))
                signal.pidfd_send_signal(handle, signal.SIGSTOP)
        self.report.stops[who] += 1
        self.report.stopped_s += for_s

    def go_on(self, *, everybody: bool = False) -> None:
        """SIGCONT for those whose time is over."""
        now = time.monotonic()
        for until, handle in self.held:
            if everybody or until <= now:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGCONT)
                os.close(handle)
        self.held = [] if everybody else [pair for pair in self.held if pair[0] > now]

    def command(self) -> None:
        """Sometimes, something for everup to be busy with when it is killed."""
        name, body = self.rng.choice(
            [("restart", {"targets": ["roll"]})] * 2
            + [("restart", {"targets": ["roll.2"]})]
            + [("stop", {"targets": ["other"]}), ("start", {"targets": ["other"]})]
            + [("scale", {"service": "other", "replicas": 1 + self.rng.randrange(4)})]
            + [("", {})] * 2
        )
        if name:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _ = self.everup.request("POST", f"/v1/{name}", body, timeout_s=2.0)
                self.report.commands[name if status == 200 else "refused"] += 1

    def answered(self) -> None:
        """Until everup answers again; where nobody of it is left, it is started."""
        until = max([time.monotonic(), *(until for until, _ in self.held)]) + _SETTLED_S
        while True:
            self.go_on()
            own = self.everup.own()
            if not own:
                done = self.everup.cli("up", "-d", "--timeout", "0", expect=None)
                self.report.ups += done.status == 0
                self.report.refused += [done.text] if done.status else []
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                _, body = self.everup.request("GET", "/v1/status", timeout_s=2.0)
                if own.keeper and json.loads(body)["engine"]["pid"] in own.engines:
                    times = (
                        self.report.slow_s
                        if self.held or self.stopped_one
                        else (self.report.recovery_s)
                    )
                    times.append(time.monotonic() - self.killed_at)
                    self.check_untouched()
                    return
            if time.monotonic() > until:
                self.everup.fail(f"everup does not come back: {own}")
            time.sleep(0.02)

    def settle(self) -> None:
        """Until nothing is on its way any more."""
        self.answered()
        everup = self.everup

        def quiet() -> bool:
            status = everup.status()
            for service in status["services"]:
                if service["rollout"] or service["outgoing"]:
                    return False
                if any(i["state"] not in ("ready", "stopped") for i in service["instances"]):
                    return False
            return everup.members() == {
                i["slot"]: [(i["run"], i["pid"])]
                for service in status["services"]
                for i in service["instances"]
                if i["pid"]
            }

        everup.wait_for(quiet, "nothing is on its way any more", _SETTLED_S)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Memory that is its own (KiB) and descriptors; the least of a few looks."""
        found: dict[str, tuple[int, int]] = {}
        for _ in range(10):
            time.sleep(0.1)
            own = self.everup.own()
            for name, pid in (("keeper", own.keeper), ("engine", own.engine)):
                now = rss_kib(pid), descriptors(pid)
                was = found.get(name, now)
                found[name] = min(was[0], now[0]), min(was[1], now[1])
        return found

    # -- what has to hold

    def check_untouched(self) -> None:
        """Those whom nobody asked to restart are there, each once."""
        members = self.everup.members()
        for slot, was in self.before.items():
            if slot.split(".")[0] in UNTOUCHED and members.get(slot) != [(was["run"], was["pid"])]:
                self.report.wrong.append(f"{slot}: {members.get(slot)} instead of {was['pid']}")

    def check_instances(self) -> None:
        now = self.everup.instances()
        for slot, was in self.before.items():
            if slot.split(".")[0] in UNTOUCHED and (
                (now[slot]["pid"], now[slot]["run"]) != (was["pid"], was["run"])
            ):
                self.report.wrong.append(f"{slot} was restarted: {was} {now[slot]}")
        for name, summary in self.report.clients.items():
            if summary.failed:
                self.report.wrong.append(f"{name}: {summary.failed} failed: {summary.failures}")

    def check_journal(self) -> None:
        """Each start has its reason before it, each run its number, and each process its end."""
        events = self.everup.events()
        self.report.events = len(events)
        reason: dict[str, str] = {}
        last: dict[str, int] = {}
        living: dict[str, set[int]] = {}
        for event in events:
            kind, slot = event["kind"], event["subject"]
            if kind == "rollout.started":
                reason |= dict.fromkeys(event["slots"], kind)
            elif kind == "service.scaled":
                reason |= {f"{slot}.{number}": kind for number in range(1, event["replicas"] + 1)}
            elif kind in _REASONS:
                reason[slot] = kind
            if kind in _ENDS:
                living.setdefault(slot, set()).discard(event.get("run", last.get(slot, 0)))
            elif kind == "instance.spawned":
                living.setdefault(slot, set()).add(event["run"])
            elif kind == "instance.starting":
                self._started(event, reason, last)
        now = {slot: {i["run"]} for slot, i in self.everup.instances().items() if i["pid"]}
        for slot, runs in living.items():
            if runs != now.get(slot, set()):
                self.report.wrong.append(f"{slot}: {runs} have not ended, {now.get(slot)} live")
        for event in events:
            if event["kind"] in ("instance.leftover", "facility.missing", "log.lost"):
                self.report.wrong.append(json.dumps(event))

    def _started(self, event: Json, reason: dict[str, str], last: dict[str, int]) -> None:
        slot, run = event["subject"], event["run"]
        if run != last.get(slot, 0) + 1:
            self.report.wrong.append(f"{slot}: run {run} follows {last.get(slot, 0)}")
        if run > 1:
            self.report.restarts[slot.split(".")[0]] += 1
            if slot not in reason:
                self.report.wrong.append(f"{slot}: nobody asked for run {run}: {event}")
        last[slot] = run
        reason.pop(slot, None)

    def check_output(self, slot: str, stream: str) -> None:
        numbers = [int(line.split()[0]) for line in self.everup.output(slot, stream)]
        self.report.lines[f"{slot} {stream}"] = len(numbers)
        wrong = [
            f"{slot} {stream}: {b} follows {a}"
            for a, b in itertools.pairwise([-1, *numbers])
            if b != a + 1
        ]
        self.report.wrong += wrong[:5]
        if len(wrong) > 5:
            self.report.wrong.append(f"{slot} {stream}: {len(wrong)} such places")


def descriptors(pid: int) -> int:
    """Without the pidfds: a keeper has one for each instance that was born of another keeper, which
    changes with who was killed and who was restarted since."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += "pidfd" not in os.readlink(path)
    return count


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
