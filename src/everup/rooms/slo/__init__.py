"""Objectives, and alerts on error budgets that are spent too fast."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="slo",
    doc="Tells of services that spend their error budget too fast.",
    room="everup.rooms.slo.room:Objectives",
)
