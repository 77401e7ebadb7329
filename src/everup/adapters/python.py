"""How everup starts a Python of its own: it finds the modules of everup and of the standard
library, never a file of that name in the working directory or where a variable leads."""

import importlib.util
import os
import site
import sys

import everup

_NEEDED = ("click", "pydantic", "aiohttp", "httptools", "psutil", "prometheus_client", "dotenv")


def command(*words: str) -> list[str]:
    """The interpreter and its options, followed by ``words``."""
    return [sys.executable, *_options(), *words]


def _options() -> list[str]:
    """``-I`` but for what everup itself comes from: an installation for one user needs that user's
    packages, one that is named by PYTHONPATH alone needs that."""
    options = ["-B"] if sys.flags.dont_write_bytecode else []
    by_environment, by_user = _is_named_by_environment(), _is_in_user_site()
    if not by_environment and not by_user:
        return ["-I", *options]
    options += [] if by_environment else ["-E"]
    return ["-P", *options, *([] if by_user else ["-s"])]


def _is_named_by_environment() -> bool:
    if sys.flags.ignore_environment:
        return False
    root = os.path.dirname(os.path.dirname(os.path.abspath(everup.__file__)))
    named = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path}
    return root in named and root not in _installed()


def _installed() -> set[str]:
    """Directories of packages, and what their .pth files add."""
    directories = set(site.getsitepackages())
    found = set(directories)
    for directory in directories:
        try:
            names = [name for name in os.listdir(directory) if name.endswith(".pth")]
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    lines = [line.strip() for line in file]
            except (OSError, UnicodeDecodeError):
                continue
            found |= {os.path.join(directory, line) for line in lines if line}
    return found


def _is_in_user_site() -> bool:
    if not site.ENABLE_USER_SITE:
        return False
    directory = site.getusersitepackages()
    if directory not in sys.path:
        return False
    inside = os.path.join(directory, "")
    if os.path.abspath(everup.__file__).startswith(inside):
        return True
    specs = map(importlib.util.find_spec, _NEEDED)
    return any(spec is not None and (spec.origin or "").startswith(inside) for spec in specs)
