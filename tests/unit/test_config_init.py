"""First configs and conversions: valid as written, and nothing is dropped."""

import pytest

from everup.config import ConfigError, check
from everup.config.init import Beside, blank, from_procfile
from everup.model.spec import Spec


def spec(text: str) -> Spec:
    report = check(text, path="e", directory="/srv")
    assert report.problems == ()
    assert report.spec is not None
    return report.spec


def test_blank_is_valid() -> None:
    report = check(blank(), path="e", directory="/srv")
    assert (report.problems, report.warnings) == ((), ())
    assert report.spec is not None
    assert list(report.spec.service) == ["web"]


def test_the_examples_in_blank_are_valid_too() -> None:
    lines = []
    for line in blank().split("\n"):
        body = line.removeprefix("# ")
        off = line.startswith("# ") and (" = " in body or body.startswith("["))
        lines.append(body if off else line)
    text = "\n".join(lines) + '\n[service.db]\ncommand = ["db"]\n'
    assert spec(text).group["shop"].services == ("web", "db")


PROCFILE = """\
# comment
web: RACK_ENV=production bundle exec puma -p $PORT -C "config/{x}.rb"
worker: bin/jobs | tee log
api: exec node server.js --port ${PORT:-3000}
release: ./manage.py migrate && echo $DONE
2x: A=$B cmd
home: ls $HOME
env: FOO='a b' cmd
inner: sh -c 'run $PORT'
?? what
"""


def test_procfile() -> None:
    drafted = from_procfile(PROCFILE, "shop")
    text = drafted.text
    services = spec(text).service
    web = services["web"]
    assert web.command == ("bundle", "exec", "puma", "-p", "{port}", "-C", "config/{{x}}.rb")
    assert web.environment == {"RACK_ENV": "production"}
    assert web.port == 5000
    assert services["worker"].command == ("sh", "-c", "bin/jobs | tee log")
    assert services["worker"].port is None
    assert services["api"].command == ("node", "server.js", "--port", "{port}")
    assert services["api"].port == 5200
    assert services["release"].type == "oneshot"
    assert services["web"].depends_on == ("release",)
    assert services["s-2x"].command == ("sh", "-c", "A=$B cmd")
    assert services["home"].command == ("sh", "-c", "exec ls $HOME")
    assert services["env"].environment == {"FOO": "a b"}
    assert services["inner"].command == ("sh", "-c", "run $PORT")
    assert services["inner"].port == 5700
    assert "# not converted: line 10: ?? what" in text
    assert text.count("# this command needs a shell") == 4
    assert [(loss.text, loss.grave) for loss in drafted.losses] == [("line 10: ?? what", True)]


def test_what_lies_beside_a_procfile_has_a_part_in_it() -> None:
    beside = Beside("X=1\nexport PORT='3000'\n", "../app/.env", "formation: all=2,web=3\nenv: x\n")
    drafted = from_procfile("\ufeffweb: run -p $PORT\nworker: work\n", "Procfile", beside)
    services = spec(drafted.text).service
    assert (services["web"].port, services["web"].replicas) == (3000, 3)
    assert (services["worker"].port, services["worker"].replicas) == (None, 2)
    assert services["web"].environment_file == ("-/srv/../app/.env",)
    assert services["worker"].environment_file == ("-/srv/../app/.env",)
    assert [loss.text for loss in drafted.losses] == [".foreman: env: x"]


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "[program:x]\ncommand = y\n", "\x7fELF"])
def test_what_is_no_procfile_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^f: there is no line of the form  name: command"):
        from_procfile(text, "f")
