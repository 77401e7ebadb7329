"""What the engine and the processes beside it agree on."""

from typing import Final

BEAT_FD: Final = 3
"""The descriptor by which such a process says that it lives, a byte a second."""
STATE_FD: Final = 4
"""The state directory, open: its user may not be let through the directories above."""
ANEW: Final = 75
"""Exit status of one that wants to be started again with the config that is in force now."""
