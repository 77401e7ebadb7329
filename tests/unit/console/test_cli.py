"""``everup console --open``."""

import os
import socket
import stat
from pathlib import Path

import click
import pytest

from everup.adapters.place import Place
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


def test_who_listens_is_told_by_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program on the port could read the link that is meant for the console."""
    place = Place.of(str(tmp_path / "everup.toml"), str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid or 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        assert cli._is_ours(place, listen)
        found = os.stat(tmp_path)
        other = os.stat_result((*found[:4], found.st_uid + 1, *found[5:]))
        monkeypatch.setattr(os, "stat", lambda *_args, **_more: other)
        assert not cli._is_ours(place, listen)
