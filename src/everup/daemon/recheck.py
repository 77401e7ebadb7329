"""The config file under a running everup: is it still valid?"""

from pathlib import Path

from everup.adapters import launch
from everup.adapters.place import Place


def config_problems(place: Place) -> list[str]:
    """What is wrong with the file now; nothing if it is valid."""
    from everup.config import check

    try:
        text = Path(place.config).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{place.config}: {error}"]
    report = check(
        text, path=place.config, directory=place.config_dir, known_users=launch.user_exists
    )
    return [str(problem) for problem in report.problems]
