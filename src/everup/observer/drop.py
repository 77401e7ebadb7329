"""Gives up root's rights, for good."""

import ctypes
import os
from collections.abc import Sequence

_PR_SET_NO_NEW_PRIVS = 38


def become(uid: int, gid: int, groups: Sequence[int] = ()) -> None:
    """Go on as that user alone, with those further groups. Raises ``OSError`` where that is not to
    be had, or not certain."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    left = set(os.getgroups()) - set(groups)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or left:
        raise OSError("the observer still has rights of its former user")
