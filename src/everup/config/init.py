"""First configs: an explained one to start from, and conversions of what is there already."""

from everup.config._draft import Drafted, Loss
from everup.config._procfile import Beside, from_procfile
from everup.config._supervisord import from_supervisord
from everup.config._supervisord_values import Surroundings

__all__ = [
    "Beside",
    "Drafted",
    "Loss",
    "Surroundings",
    "blank",
    "from_procfile",
    "from_supervisord",
]

_BLANK = """\
# everup.toml: what to keep up, and what that means.
# Check it with `everup check`. Lines that start with # are off; values are examples.

[service.web]
command = ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "{port}"]  # no shell
port = 8000                    # replica 1 gets 8000 as {port} and PORT, replica 2 gets 8001
# replicas = 2
# listen = "127.0.0.1:8080"    # or: everup opens the socket and passes it on (LISTEN_FDS),
#                              # so that restarts refuse nobody
# depends_on = ["db"]          # starts once db is ready
# user = "www-data"            # needs root
# directory = "/srv/web"       # default: where this file is
# environment = { MODE = "production" }
# environment_file = "-web.env"  # the - allows it to be missing
# stop_signal = "SIGTERM"
# stop_timeout = "10s"         # then SIGKILL
# limits = { memory = "512M", tasks = 200, nofile = 4096 }

[service.web.probe]
# startup = { tcp = "listen" }
readiness = { http = "/", interval = "1s", timeout = "1s" }    # gets connections while it succeeds
# liveness = { http = "/", interval = "5s", timeout = "2s", failure_threshold = 3 }  # else restart

[service.web.restart]
# policy = "always"            # always | on-failure | never
# delay = "100ms"              # before the second restart in a row; doubles up to
# max_delay = "30s"
# intensity = { limit = 5, period = "10s" }  # more crashes: retried slowly, and everup says so

# [service.migrate]
# command = ["python3", "manage.py", "migrate"]
# type = "oneshot"             # runs once; what depends on it waits for its success

# [defaults]                   # for every service that does not say otherwise
# stop_timeout = "30s"

# [group.shop]
# services = ["web", "db"]
# strategy = "one_for_one"     # one_for_one | one_for_all | rest_for_one

# [everup]
# state_dir = ".everup"        # journal, logs, sockets
"""


def blank() -> str:
    """A commented config with one small service that runs wherever Python is."""
    return _BLANK
