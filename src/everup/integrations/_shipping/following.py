"""Follows the journal for who ships it, from the place that was acknowledged last."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

from everup.integrations._shipping.cursor import Cursor
from everup.model.journal import Entry
from everup.observer.feed import Feed

_AGAIN_S: Final = 0.5


async def follow(feed: Feed, cursor: Cursor) -> AsyncIterator[Sequence[Entry]]:
    """Give what is not acknowledged yet, and then what comes, for ever.

    The journal itself is the backlog: while who asks does not take the next batch, nothing of it
    is read. One that begins anew, since its files were lost, is shipped from its beginning.
    """
    after = cursor.read()
    while after:
        try:
            last = int((await feed.status())["last_seq"])
        except OSError:
            await asyncio.sleep(_AGAIN_S)
            continue
        after = after if last >= after else 0
        break
    async for entries in feed.entries(after):
        if entries:
            yield entries
