"""The engine process, as the keeper starts it: ``python -m everup.daemon PLACE_JSON``; with
``--try`` after that it only tells whether it could run (see ``trial``)."""

import gc

gc.disable()  # until all is loaded: what is loaded stays, and a tenth of the start is looking at it

from everup.daemon import beats

beats.begin()  # the keeper listens from our first instant on

import asyncio
import contextlib
import errno
import importlib
import json
import os
import select
import shlex
import sys
import threading
from typing import Any, NoReturn

from everup.adapters import accepted, aside, named
from everup.adapters.journal import JournalError
from everup.adapters.place import Place
from everup.config import MAX_BYTES, ConfigError, load
from everup.daemon import defect, trial
from everup.daemon.doors import Doors
from everup.daemon.runtime import CANNOT_BEGIN, Runtime
from everup.keeper.voice import never_wait
from everup.model.display import shown
from everup.model.event import Event
from everup.model.spec import Spec


def main() -> int:
    # The log pump shares the interpreter with the loop and must hand it over quickly.
    sys.setswitchinterval(0.0005)
    place = Place(**json.loads(sys.argv[1]))
    if sys.argv[2:] == ["--try"]:
        return trial.run(place)
    never_wait()
    keeper_fd = int(os.environ.pop("EVERUP_KEEPER_FD"))
    if (weak := place.weakness()) is not None:
        text = (
            f"everup: {weak}: somebody else could write what everup goes by. Nothing is read from "
            f"there, and the services go on unattended until it is mended: {weak.mend}\n"
        )
        sys.stderr.write(shown(text))
        return CANNOT_BEGIN
    try:
        spec = _config(place)
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        _say(
            f"{place.config}: {error}\nThere is no config to go by, and the services go on "
            f"unattended until it is mended: everup -c {shlex.quote(place.config)} check"
        )
        return CANNOT_BEGIN
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    with asyncio.Runner() as runner:
        try:
            return runner.run(_run(_Runtime(spec, place, keeper_fd)))
        except JournalError as error:
            sys.stderr.write(shown(f"everup: {error}\n"))
            return 1
        except (MemoryError, SystemError):
            _leave()


def _config(place: Place) -> Spec:
    """The text that `everup up` accepted, not the file: that may have changed for the worse. Where
    it cannot be used any more (a damaged disk), the file is better than nobody to look after the
    services. ``ConfigError``, ``OSError``, ``UnicodeDecodeError`` where that is none either."""
    spec, text = None, ""
    for read, path in ((accepted.read, place.accepted), (accepted.read_memory, "its copy")):
        try:
            text = aside.call(_READ_S, read, place)
            spec = _load(place, text)
            break
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            _say(f"{path}: {error}")
    if spec is None:
        _say(f"going by {place.config} as it is now")
        return _load(place, aside.call(_READ_S, named.read_text, place.config, MAX_BYTES))
    with contextlib.suppress(OSError):  # a full disk, for example: what there is has to do
        if aside.call(_READ_S, accepted.mend, place, text):
            _say(f"{place.accepted} was damaged or gone; it is as it was accepted again")
    return spec


def _load(place: Place, text: str) -> Spec:
    return load(text, path=place.config, directory=place.config_dir)


def _say(text: str) -> None:
    sys.stderr.write(shown(f"everup: {text}\n"))


class _Runtime(Runtime):
    """A step for which there is not enough memory leaves a state that nobody knows."""

    def dispatch(self, event: Event) -> None:
        try:
            super().dispatch(event)
        except MemoryError:
            _leave()


_SERVE_AGAIN_S = 1.0
_READ_S = 5.0
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SHORT_EVERY_S = 60.0
_short_at = -_SHORT_EVERY_S


def _loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    global _short_at
    error = context.get("exception")
    if isinstance(error, MemoryError):
        _leave()
    if isinstance(error, OSError) and error.errno in _SHORT:
        # asyncio tells of it a hundred times for each connection that it cannot accept.
        if loop.time() - _short_at >= _SHORT_EVERY_S:
            _short_at = loop.time()
            with contextlib.suppress(OSError):
                sys.stderr.write(f"everup: {context['message']}: {error}; services go on\n")
        return
    loop.default_exception_handler(context)


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    """Without the one that reads their output, for example, all services would stop in time."""
    name = args.thread.name if args.thread else ""
    _leave(f"its thread {name} ended by {args.exc_type.__name__}: {args.exc_value}")


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    """A thread that had no memory to begin with, for example: who waits for it would wait on."""
    if issubclass(args.exc_type, MemoryError):
        _leave()
    sys.__unraisablehook__(args)


_NO_MEMORY = b"everup: out of memory; this engine leaves, services go on\n"


def _leave(why: str = "") -> NoReturn:
    """At once: to end in order needs what is lacking. The next engine is whole and takes over.
    Without a reason it is out of memory: what is said then has been made before."""
    with contextlib.suppress(OSError, MemoryError):
        said = f"everup: {why}; this engine leaves, services go on\n".encode()
        if select.select([], [2], [], 0)[1]:  # nobody is waited for
            os.write(2, said if why else _NO_MEMORY)
    os._exit(defect.STATUS)


async def _run(runtime: Runtime) -> int:
    # Services first: the API's libraries take longer to load than everything else together.
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_loop_error)
    serving = loop.create_task(_serve(runtime))
    try:
        return await runtime.run()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _serve(runtime: Runtime) -> None:
    await runtime.began.wait()
    # In a thread: it takes longer than a probe may be late.
    try:
        serve = (await asyncio.to_thread(importlib.import_module, "everup.api.server")).serve
        gc.collect()
        gc.freeze()  # collections need not look at it again
    finally:
        gc.enable()
    told, path, doors = "", runtime.place.api_socket, Doors(runtime)
    while not runtime.leaving:
        try:
            await doors.serve(path, serve(runtime, path))
        except Exception as error:
            if str(error) != told:
                told = str(error)
                runtime.voice.say(f"the API cannot serve ({told}); trying again every second")
            await asyncio.sleep(_SERVE_AGAIN_S)


if __name__ == "__main__":
    sys.exit(main())
