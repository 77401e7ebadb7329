"""Every manifest is whole: what a room asks for is carried out, what it writes has words, what it
takes from the config has a text."""

import importlib
import sys
from typing import Any

import pytest

from everup import app, edges
from everup.config._fields import keys_of, table_text
from everup.config._texts import texts_of
from everup.kernel.manifest import Manifest, load
from everup.model.action import Asked

IDS = [room.name for room in app.ROOMS]


def actions_of(room: Manifest) -> list[type]:
    for name in (room.room.partition(":")[0], room.edge):
        if name:
            importlib.import_module(name)
    mine = [kind for kind in Asked.__subclasses__() if kind.__module__.split(".")[2] == room.name]
    # A dataclass with slots is a class made anew; the one before it is found here until it is gone.
    return [kind for kind in mine if getattr(sys.modules[kind.__module__], kind.__name__) is kind]


def test_names_are_unique() -> None:
    assert len(set(IDS)) == len(IDS)
    keys = [table.key for table in app.tables()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("room", app.ROOMS, ids=IDS)
def test_every_action_is_carried_out_here_and_in_simulation(room: Manifest) -> None:
    for part in ("edge", "double"):
        there = edges.performers(part, room.host)
        assert [kind for kind in actions_of(room) if kind not in there] == [], part


@pytest.mark.parametrize("room", app.ROOMS, ids=IDS)
def test_every_name_of_the_manifest_leads_somewhere(room: Manifest) -> None:
    names = [room.room, room.edge, room.double, *(c.function for c in room.commands)]
    names += [table.spec for table in room.tables] + [route.handler for route in room.routes]
    for name in filter(None, names):
        assert load(name) is not None
    assert room.doc.endswith(".")
    if room.room:
        kind: Any = load(room.room)
        assert kind.hears, "a room that hears nothing decides nothing"


@pytest.mark.parametrize("room", app.ROOMS, ids=IDS)
def test_kinds_and_tables_say_what_they_are(room: Manifest) -> None:
    for kind in room.kinds:
        assert kind.value.startswith(f"{room.name}.")
        assert kind.doc
    for table in room.tables:
        spec = load(table.spec)
        assert table_text(spec)
        texts = texts_of(spec)
        assert [key for key in keys_of(spec) if key != "name" and not texts.get(key)] == []
