"""What a process of a singleton is started with beyond what any other gets."""

from collections.abc import Mapping
from typing import Any

from everup.model.action import Spawn


def fenced(request: Mapping[str, Any], action: Spawn) -> dict[str, Any]:
    """Give the request of a spawn with the fencing token, and the time at which the keeper kills
    what it has started; as it was where the service is no singleton."""
    if not action.fence:
        return dict(request)
    token = {"EVERUP_FENCE": str(action.fence)}
    return {**request, "env": request["env"] | token, "until": action.until}
