"""Options of supervisord about a program's output."""

import re
from collections.abc import Mapping

from everup.config._draft import Draft
from everup.config._problem import toml_string
from everup.config._supervisord_values import Unknown

_BYTES = re.compile(r"([0-9]+)\s*([KMG]?)B?", re.IGNORECASE)
_FILE = re.compile(r"std(out|err)_logfile(_maxbytes|_backups)?")
_OWN_OUTPUT = frozenset(
    {"/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2"}
)
"""Files that are supervisord's own output: the log of a container."""
_FORWARDED = "log.forward copies both outputs to everup's own stdout; the files stay bounded"


def forwarded(draft: Draft, options: Mapping[str, str], key: str, value: str, off: bool) -> bool:
    """Draft ``log.forward`` for a program that writes to supervisord's own output; returns whether
    that is all there is to say of this option."""
    if options.get("stdout_logfile", "").strip() not in _OWN_OUTPUT or not _FILE.fullmatch(key):
        return False
    if key == "stdout_logfile":
        draft.keys["log.forward"] = '"stdout"'
        return True
    if value.strip() not in _OWN_OUTPUT and not off:
        return False
    draft.note(f"{key} = {value}: {_FORWARDED}")
    return True


def log_size(value: str) -> str:
    """Give the TOML of a size of a log file. Raises ``Unknown``."""
    match = _BYTES.fullmatch(value)
    if match is None or len(match[1]) > 12:
        raise Unknown("expected a size")
    size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
    if size < 4096:
        raise Unknown("everup's logs are always bounded, by 4K at least")
    return toml_string(f"{match[1]}{match[2].upper()}" if match[2] else f"{match[1]}B")
