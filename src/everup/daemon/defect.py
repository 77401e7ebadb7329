"""A defect of everup's own inside a step: told, then the process ends."""

import contextlib
import sys
import traceback

from everup.adapters.journal import Journal
from everup.model.action import Record
from everup.model.event import Event
from everup.model.journal import Kind

STATUS = 72
"""Exit status of an engine that is not whole any more."""
ANSWER_S = 0.1
"""Who has asked for the step is told what happened before the process ends."""
_TEXT = 500


def tell(journal: Journal, event: Event, error: Exception, config: str = "") -> None:
    """Write what is known of the defect to the journal and to everup's log. ``config``: the digest
    of the config that was about to be applied, which no engine is to try again by itself."""
    what, asked = f"{type(error).__name__}: {error}", type(event).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename.rpartition('/everup/')[2]}:{last.lineno}, {last.name}"
    with contextlib.suppress(OSError, ValueError):
        trace = "".join(traceback.format_exception(error))
        sys.stderr.write(
            f"everup: a defect in everup itself while it took {asked}; this engine leaves and the "
            f"next one takes over, services go on\n{trace}"
        )
    payload = {"event": asked, "error": what[:_TEXT], "where": where}
    payload |= {"config": config} if config else {}
    with contextlib.suppress(Exception):  # what it was stands in the log at least
        journal.append([Record(Kind.ENGINE_DEFECT, "everup", payload, durable=True)])
