"""The observer process: ``python -m everup.observer WORDS_JSON``, started by the engine.

It comes with everup's rights, loads what it is made of, and gives the rights up before it reads
anything that a service has written or listens to anybody.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - loaded before the process gives up its rights
import encodings.idna  # noqa: F401
import json
import os
import signal
import sys
import time

from everup import app, edges
from everup.adapters import accepted
from everup.adapters.place import Place
from everup.config import load
from everup.keeper.voice import never_wait
from everup.kernel.manifest import load as load_name
from everup.model.aid import BEAT_FD, STATE_FD
from everup.model.spec import Spec
from everup.observer import drop, secrets
from everup.observer.host import Host


def main() -> int:
    """Run until it is told to end."""
    words = json.loads(sys.argv[1])
    place = Place(**words["place"])
    never_wait()
    read_at = time.time()
    text = accepted.read(place)
    spec = load(text, path=place.config, directory=place.config_dir)
    # Its user may not be let in where Python and everup are installed: what is to be loaded later
    # has to be loaded now.
    edges.sources("observer")
    edges.performers("edge", "observer")
    edges.prepare("observer", spec)
    for room in app.hosted("observer"):
        if room.room:
            load_name(room.room)
    held = secrets.of(spec, place.config_dir)
    # Its user may not be let through the directories above; so it goes by where it stands.
    os.fchdir(STATE_FD)
    if words["uid"] is not None:
        drop.become(words["uid"], words["gid"], words["groups"])
    os.set_inheritable(BEAT_FD, False)
    os.set_inheritable(STATE_FD, False)
    os.set_blocking(BEAT_FD, False)
    return asyncio.run(_run(spec, _beside(place), held, read_at))


def _beside(place: Place) -> Place:
    """The same place, from where we stand."""
    run_dir = "." if place.run_dir == place.state_dir else place.run_dir
    return Place(place.config, place.config_dir, ".", run_dir)


async def _run(spec: Spec, place: Place, held: secrets.Secrets, read_at: float) -> int:
    host = Host(spec, place, BEAT_FD, "observer", held, read_at)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, host.end, 0)
    return await host.run()


if __name__ == "__main__":
    sys.exit(main())
