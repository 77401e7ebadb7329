"""A real Chromium, from Debian's packages, driven by Playwright. Both stay in the cache folder."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _debian import MissingError, cache, libraries, unpacked

PLAYWRIGHT = "playwright==1.61.0"
AXE = "axe-playwright-python==0.1.8"
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>
<alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias>
<cachedir>{root}/fontcache</cachedir></fontconfig>
"""


def _fetched(package: str, *flags: str) -> Path:
    """Give the folder with a package, fetched once: only these tests need it."""
    folder = cache() / package.replace("==", "-")
    if not (folder / ".whole").exists():
        get = [sys.executable, "-m", "pip", "install", "-q", *flags, "--target", str(folder)]
        done = subprocess.run([*get, package], capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"{package}: {done.stderr.strip()[-400:]}; try: pip install")
        (folder / ".whole").touch()
    return folder


def axe() -> str:
    """Give the script of axe-core, which finds what a screen reader would not."""
    folder = _fetched(AXE, "--no-deps")
    return (folder / "axe_playwright_python/axe.min.js").read_text(encoding="utf-8")


def _playwright() -> Any:
    folder = _fetched(PLAYWRIGHT)
    sys.path.append(str(folder))
    try:
        from playwright import sync_api
    finally:
        sys.path.remove(str(folder))
    return sync_api


def _environment(root: Path) -> dict[str, str]:
    """Chromium with its libraries and fonts, which are not where it looks for them."""
    fonts = root / "fonts.conf"
    fonts.write_text(_FONTS.format(root=root))
    places = libraries(root).split(":")
    places += [f"{place}/pulseaudio" for place in places]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(places), "FONTCONFIG_FILE": str(fonts)}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Give a browser of Playwright."""
    root = unpacked("chromium", ["chromium", "fonts-noto-cjk", "fonts-dejavu-core"])
    with _playwright().sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(root / "usr/lib/chromium/chromium"),
            env=_environment(root),
            args=list(_FLAGS),
        )
        try:
            yield browser
        finally:
            browser.close()
