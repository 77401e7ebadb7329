"""What is going on: output as templates."""

from typing import Final

from everup.kernel.manifest import Manifest

ROOM: Final = Manifest(
    name="monitor",
    doc="Understands what services write.",
)
