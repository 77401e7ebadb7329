"""Gives up root's rights, for good."""

import ctypes
import os

_PR_SET_NO_NEW_PRIVS = 38


def become(uid: int, gid: int) -> None:
    """Go on as that user alone. Raises ``OSError`` where that is not to be had, or not certain."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups():
        raise OSError("the observer still has rights of its former user")
