"""``everup init`` converted a supervisord.conf so that programs ran with other arguments, other
variables or as root, ended with a traceback for what is none, and did not say what it had lost."""

import os
import socket
import subprocess
import sys

import pytest
from _everup import Everup
from _fixtures import needs_root

_FCGI = """\
import os, socket, sys
served = socket.socket(fileno=0)
assert "LISTEN_FDS" not in os.environ
while True:
    connection, _ = served.accept()
    connection.sendall(f"{os.getuid()} {os.getcwd()} {os.environ['A']} {sys.argv[1:]}".encode())
    connection.close()
"""


@pytest.mark.parametrize("content", [b"nonsense", b"[a]\nx\n", b"\x7fELF\x00\xff", b"\xff\xfe[\0"])
@pytest.mark.parametrize("option", ["--supervisord", "--procfile"])
def test_what_is_none_is_refused_in_a_line(everup: Everup, option: str, content: bytes) -> None:
    (everup.directory / "it").write_bytes(content)
    result = everup.cli("init", option, "it", "new.toml", expect=2)
    assert "Traceback" not in result.err
    assert "it" in result.err
    assert not (everup.directory / "new.toml").exists()


def test_the_main_file_of_debian(everup: Everup) -> None:
    """All its programs are in what it includes."""
    main = "[supervisord]\nlogfile=/var/log/s.log\n[include]\nfiles = conf.d/*.conf\n"
    (everup.directory / "supervisord.conf").write_text(main)
    assert "conf.d/*.conf: there is no such file" in everup.cli("init", expect=2).err
    (everup.directory / "conf.d").mkdir()
    (everup.directory / "conf.d" / "a.conf").write_text(
        "\ufeff[program:a]\ncommand=%(here)s/run\numask=99\nstartretries=9\n"
        "[eventlistener:mail]\ncommand=x\x1b]0;\n"
    )
    result = everup.cli("init")
    *_, heading, first, second, third = result.err.rstrip().split("\n")
    assert heading == "not converted: 3 things, 2 of them change what runs; each is a comment in "\
        "everup.toml"  # fmt: skip
    assert first.startswith("! [eventlistener:mail]: ") or second.startswith("! [eventlistener")
    assert "a: umask = 99: expected octal digits" in first + second
    assert third.startswith("  a: startretries = 9")
    assert "\x1b" not in result.err
    assert f"{everup.directory}/conf.d/run" in everup.config.read_text()
    checked = everup.cli("check", "-q")
    assert "service.a: drafted with 2 things not converted: umask = 99" in checked.err
    assert "is valid: 1 service " in checked.err
    losses = everup.cli("init", "--force", "--json").json["losses"]
    assert [(loss["where"], loss["grave"]) for loss in losses] == [
        ("service.a", True),
        ("", True),
        ("service.a", False),
    ]


def test_the_variables_beside_a_procfile(everup: Everup) -> None:
    """foreman and honcho read ``.env`` and count ports from its PORT."""
    (everup.directory / ".env").write_text("PORT=7100\nWHO=world\n")
    (everup.directory / "Procfile").write_text("\ufeffweb: sh -c 'echo $WHO $PORT; sleep 1000'\n")
    everup.cli("init")
    everup.up()
    everup.wait_for(
        lambda: "world 7100" in everup.cli("logs", "web").out, "the service shows its variables"
    )


def _python_of_all() -> str:
    """A Python that every user may run: that of the tests may lie in root's home."""
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        try:
            if subprocess.run([python, "-c", ""], user=65534, check=False).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("no Python here that another user may run")


@needs_root
def test_programs_run_as_supervisord_would_have_run_them(open_everup: Everup) -> None:
    directory = open_everup.directory
    (directory / "fcgi.py").write_text(_FCGI)
    (directory / "fcgi.py").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (directory / "supervisord.conf").write_text(
        f"[supervisord]\nuser=65534\ndirectory={directory}\nenvironment=A='%(ENV_PATH)s'\n"
        f"[fcgi-program:f]\nsocket=tcp://127.0.0.1:{port}\n"
        f"command={_python_of_all()} %(here)s/fcgi.py {{x}} '%(process_num)02d a'\n"
    )
    open_everup.cli("init")
    open_everup.up()
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(20)
        said = client.makefile().read()
    uid, cwd, path, arguments = said.split(" ", 3)
    assert uid == "65534"
    assert os.path.realpath(cwd) == os.path.realpath(directory)
    assert path == open_everup.environment["PATH"]
    assert arguments == "['{x}', '00 a']"
