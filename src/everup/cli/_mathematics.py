"""What ``everup report`` and ``everup plan`` need, and nothing else: six times as large as all of
the rest, so it is not installed for those who do not ask for it."""

from importlib.util import find_spec

from everup.cli.context import Failure


def need_mathematics(command: str) -> None:
    """Raise ``Failure`` where numpy or scipy is missing, with what to do."""
    missing = [name for name in ("numpy", "scipy") if find_spec(name) is None]
    if missing:
        raise Failure(
            f"everup {command} needs {' and '.join(missing)}, which this installation lacks",
            'pip install "everup[report]"',
        )
