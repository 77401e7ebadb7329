"""The template as text; that Zabbix takes it, and what it does with it, tests/systems tells."""

import re
from typing import get_args

import pytest

from everup.integrations.zabbix import status
from everup.integrations.zabbix.template import FORMATS, Format, template

FORMS: tuple[Format, ...] = get_args(Format)


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_each_of_one_thing_and_of_version_4(form: Format) -> None:
    found = re.findall(r'uuid: "(.*)"', template(form))
    assert len(found) == len(set(found))
    for uuid in found:
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", uuid)


def test_the_same_thing_has_the_same_id_in_all_formats() -> None:
    old, new = ({*re.findall(r'uuid: "(.*)"', template(form))} for form in FORMS)
    assert FORMATS == FORMS
    assert old == new


@pytest.mark.parametrize("form", FORMS)
def test_every_key_that_is_named_is_an_item(form: Format) -> None:
    text = template(form)
    keys = {*re.findall(r'^ +key: "(.*)"$', text, re.MULTILINE)}
    made = {*re.findall(r'type: "(?:TRAP|DEPENDENT)"\n +key: "(.*)"$', text, re.MULTILINE)}
    named = {*re.findall(r"/(?:everup|\{HOST\.HOST\})/([^,)]+)", text)}
    assert status.KEY in made
    assert keys | named == made
