"""The decider of the room echo."""

from collections.abc import Mapping
from typing import ClassVar

from everup.rooms.echo.actions import Say
from everup.rooms.echo.config import Echo as Table
from everup.rooms.echo.entries import RANG, Rung
from everup.rooms.echo.facts import Beat, Rang

from everup.kernel.ctx import Ctx
from everup.kernel.room import Quiet
from everup.model.world import World


class Echo(Quiet):
    """Counts beats, and speaks at every few of them."""

    hears: ClassVar[tuple[type, ...]] = (Beat, Rang)

    def __init__(self) -> None:
        self._beats = 0
        self._heard = 0

    def step(self, event: Beat | Rang, ctx: Ctx[World]) -> None:
        match event:
            case Beat():
                self._beats += 1
                if self._beats % ctx.table("echo", Table).every == 0:
                    ctx.write(RANG, "everup", Rung(self._beats))
                    ctx.do(Say(f"{self._beats} beats"))
                    ctx.publish(Rang(self._beats))
            case Rang():
                self._heard += 1

    def view(self) -> Mapping[str, object]:
        return {"beats": self._beats, "heard": self._heard}

    def check_invariants(self) -> None:
        assert self._heard <= self._beats
