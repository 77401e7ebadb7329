"""Journals for the tests of history and account, as the engine writes them."""

from typing import Any

from everup.reliability.history import History, Row

US = 1_000_000
BEGAN = 1_700_000_000.0
Stretch = tuple[float, float, int]


class Script:
    """Entries, one after the other; ``at`` moves the clock."""

    def __init__(self, boot: str = "boot", mono: float = 1000.0) -> None:
        self.rows: list[Row] = []
        self.boot, self.mono, self.wall = boot, mono, BEGAN

    def at(self, seconds: float) -> "Script":
        """Seconds since the begin of the script, of a machine that was on all the time."""
        mono = 1000.0 + seconds
        assert mono >= self.mono
        self.wall += mono - self.mono
        self.mono = mono
        return self

    def add(self, kind: str, subject: str, **payload: Any) -> "Script":
        seq = self.rows[-1][0] + 1 if self.rows else 1
        self.rows.append((seq, self.wall, self.mono, self.boot, kind, subject, payload))
        return self

    def i(self, kind: str, slot: str, run: int, **payload: Any) -> "Script":
        return self.add(f"instance.{kind}", slot, run=run, **payload)

    # -- what often happens

    def engine(self, takeover: bool = False) -> "Script":
        return self.add("engine.started", "everup", pid=2, keeper=1, takeover=takeover)

    def start(self, slot: str, run: int) -> "Script":
        self.i("starting", slot, run, lane=1, gen=0)
        return self.i("spawned", slot, run, pid=100 + run)

    def ready(self, slot: str, run: int) -> "Script":
        return self.i("ready", slot, run)

    def up(self, slot: str, run: int) -> "Script":
        return self.start(slot, run).ready(slot, run)

    def exit(
        self, slot: str, run: int, kind: str = "code", value: int = 1, **more: Any
    ) -> "Script":
        return self.i(
            "exited", slot, run, cause=f"exit {value}", exit_kind=kind, value=value, **more
        )

    def stop(self, slot: str, run: int) -> "Script":
        """By an operator, from ready to stopped, at one moment."""
        self.add("service.wanted", slot, want=False, by="uid 0", how="stopped")
        self.i("stopping", slot, run, reason="stopped by uid 0")
        self.exit(slot, run, value=0)
        return self.i("stopped", slot, run, reason="stopped by uid 0")

    def calls(self, of: str, ok: int, failed: int = 0, rejected: int = 0) -> "Script":
        """A process says how its calls of ``of`` went."""
        counts = {"ok": ok, "failed": failed, "rejected": rejected, "neutral": 5}
        return self.add("dependency.calls", "shop.1", run=1, dependencies={of: counts}, so_far={})

    def history(self) -> History:
        history = History()
        history.feed(self.rows)
        return history

    def now(self, history: History) -> int:
        return history.moment(self.wall, self.mono, self.boot)


def stretches(history: History, slot: str, end: float) -> list[Stretch]:
    """What was not up, in seconds since the begin of the script."""
    zero = int(BEGAN * US)
    line = history.slots[slot].line
    found = line.stretches(zero, zero + int(end * US))
    return [((a - zero) / US, (b - zero) / US, cls) for a, b, cls in found]
