"""The engine process, as the keeper starts it: ``python -m everup.daemon PLACE_JSON``."""

import asyncio
import gc
import importlib
import json
import os
import sys
from pathlib import Path

from everup.adapters.journal import JournalError
from everup.adapters.place import Place
from everup.config import load
from everup.daemon.runtime import Runtime


def main() -> int:
    # The log pump shares the interpreter with the loop and must hand it over quickly.
    sys.setswitchinterval(0.0005)
    place = Place(**json.loads(sys.argv[1]))
    keeper_fd = int(os.environ.pop("EVERUP_KEEPER_FD"))
    # The text that `everup up` accepted, not the file: that may have changed for the worse.
    text = Path(place.accepted).read_text()
    spec = load(text, path=place.config, directory=place.config_dir)
    try:
        return asyncio.run(_run(Runtime(spec, place, keeper_fd)))
    except JournalError as error:
        sys.stderr.write(f"everup: {error}\n")
        return 1


async def _run(runtime: Runtime) -> int:
    # Services first: the API's libraries take longer to load than everything else together.
    serving = asyncio.get_running_loop().create_task(_serve(runtime))
    try:
        return await runtime.run()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _serve(runtime: Runtime) -> None:
    await runtime.began.wait()
    # In a thread: it takes longer than a probe may be late.
    serve = (await asyncio.to_thread(importlib.import_module, "everup.api.server")).serve
    gc.collect()
    gc.freeze()  # what is loaded by now stays; collections need not look at it again
    while True:
        try:
            await serve(runtime, runtime.place.api_socket)
        except Exception as error:
            runtime.voice.say(f"the API cannot serve ({error}); trying again in 5 s")
            await asyncio.sleep(5)


if __name__ == "__main__":
    sys.exit(main())
