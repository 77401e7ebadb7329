"""The config file under a running everup: is it still valid?"""

from everup.adapters import launch, named
from everup.adapters.place import Place


def config_problems(place: Place) -> list[str]:
    """What is wrong with the file now; nothing if it is valid."""
    from everup import config

    try:
        text = named.read_text(place.config, config.MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        return [f"{place.config}: {error}"]
    report = config.check(
        text, path=place.config, directory=place.config_dir, known_users=launch.user_exists
    )
    return [str(problem) for problem in report.problems]
