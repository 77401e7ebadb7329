"""``everup console --open``."""

import os
import stat
from pathlib import Path

import click
import pytest

from everup.rooms.console import cli

LINK = f"http://127.0.0.1:7077/#{'S' * 43}"


def test_the_link_is_in_no_process_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may see the processes of others is not to be quicker than the browser."""
    seen: list[str] = []

    def launch(url: str) -> int:
        assert "S" * 43 not in url
        assert stat.S_IMODE(os.stat(url).st_mode) == 0o600
        seen.extend((url, Path(url).read_text(encoding="utf-8")))
        return 0

    monkeypatch.setattr(click, "launch", launch)
    monkeypatch.setattr(cli, "_READ_S", 0.0)
    cli._open(LINK)
    path, page = seen
    assert f"url={LINK}" in page
    assert not os.path.exists(path)
