"""A real Kibana 5.1.1 shows what a real everup has shipped."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup, python
from _kibana import Kibana
from _search import Search

sys.path.append(str(Path(__file__).parents[1] / "console"))

from _chromium import chromium

CRASHING = {
    "command": python("import sys; sys.exit('connection to server at \"db\" failed')"),
    "restart": {"delay": "200ms", "max_delay": "200ms", "intensity": {"limit": 10000}},
}


SHOWN = {
    "overview": ["everup: failures by cause", "exit 1", "bad.1"],
    "incidents": ["everup: who is hurt", "everup.incident.severity", "critical"],
    "service": ["everup: how it ended", "instance.exited"],
    "availability": ["everup: failures over time", "mean seconds"],
    "itself": ["everup: machines", "engine.started"],
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="everup-kibana-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def dashboard(search: Search, name: str) -> dict[str, Any]:
    status, found = search.ask("GET", f"/.kibana/dashboard/everup-{name}")
    return found["_source"] if status == 200 else {}


@pytest.mark.timeout(1500)  # the first time, Kibana is installed
def test_dashboards_show_what_happens(everup: Everup, folder: Path) -> None:
    search = Search("5.6.16", folder / "search").start()
    kibana = Kibana(folder / "kibana", search.url)
    try:
        kibana.start()
        everup.write(
            {"web": {"command": SLEEP}, "bad": CRASHING},
            tables={"elasticsearch": {"urls": [search.url]}, "kibana": {"url": kibana.url}},
            observer=True,
        )
        everup.cli("elasticsearch", "setup")
        assert "36 data views" in everup.cli("kibana", "setup").out
        everup.up(expect=None, arguments=["--timeout", "1"])

        def shipped() -> bool:
            search.ask("POST", "/_refresh")
            found = search.ask("GET", "/everup-incidents-default/_count")[1]
            return bool(found.get("count"))

        everup.wait_for(shipped, "an incident is there", 40.0)
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1500, "height": 1600})
            for name, words in SHOWN.items():
                page.goto(f"{kibana.url}/app/kibana#/dashboard/everup-{name}", timeout=60_000)
                for word in words:
                    page.get_by_text(word).first.wait_for(timeout=40_000)
                assert "Could not locate" not in page.inner_text("body"), name

        # What somebody has changed is kept, until they want it back.
        changed = dashboard(search, "overview") | {"title": "mine"}
        assert search.ask("PUT", "/.kibana/dashboard/everup-overview", changed)[0] == 200
        assert "36 were there and are kept" in everup.cli("kibana", "setup").out
        assert dashboard(search, "overview")["title"] == "mine"
        everup.cli("kibana", "setup", "--overwrite")
        assert dashboard(search, "overview")["title"] == "everup: overview"
        assert "36 of 36 objects removed" in everup.cli("kibana", "remove").out
        assert dashboard(search, "overview") == {}
        assert "0 of 36" in everup.cli("kibana", "remove").out
        lines = everup.cli("kibana", "export").out.splitlines()
        assert len([json.loads(line) for line in lines]) == 36
    finally:
        kibana.kill()
        search.kill()
