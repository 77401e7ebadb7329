"""What a cluster's table may say, and what is told where it may not."""

import pytest

from everup.config import check

BASE = '[cluster]\nname = "shop"\nnode = "n1"\netcd = ["http://e1:2379"]\n'
DB = '[service.db]\ncommand = ["serve"]\nsingleton = true\n'


def problems(text: str) -> list[str]:
    report = check(text, path="everup.toml", directory="/")
    return [str(problem) for problem in report.problems]


def test_defaults_hold_their_own_inequality() -> None:
    assert problems(BASE + DB) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + 'ttl = "5s"\n' + DB, "loop_wait + 2 * retry_timeout must not be longer than ttl"),
        (BASE + 'ttl = "15.5s"\n' + DB, "whole seconds"),
        (BASE + 'ttl = "2s"\n' + DB, "cluster.ttl"),
        (BASE.replace('node = "n1"\n', "") + DB, "node is missing"),
        (BASE.replace('name = "shop"\n', "") + DB, "name is missing"),
        (BASE + 'user = "root"\n' + DB, "password_file need each other"),
        (BASE + 'user = "r"\npassword_file = "p"\n' + DB, "expected https://"),
        (BASE + 'key_file = "k"\n' + DB, "needs cert_file"),
        (BASE.replace("http://", "http://u:p@") + DB, "cluster.etcd"),
        (BASE + "[everup]\nobserver = false\n" + DB, "needs the observer"),
        (DB, "needs [cluster]"),
        (BASE + DB + "replicas = 2\n", "one replica in the whole cluster"),
        (BASE + DB + "standby = 1\n", "one replica in the whole cluster"),
        (BASE + DB + "overlap = true\n", "never run side by side"),
        (BASE + DB + 'type = "oneshot"\n', "a oneshot runs once"),
    ],
)
def test_what_cannot_be_is_told_by_its_key(text: str, words: str) -> None:
    found = problems(text)
    assert any(words in problem for problem in found), found


def test_two_members_are_warned_of() -> None:
    text = BASE.replace('"http://e1:2379"', '"http://e1:2379", "http://e2:2379"') + DB
    report = check(text, path="everup.toml", directory="/")
    assert report.spec is not None
    assert any("take three" in str(warning) for warning in report.warnings)
