"""The conditions that everup knows: what each is called, how grave it is, and what ends it.

The reference of conditions is made from this table.
"""

from dataclasses import dataclass
from typing import Final

from everup.model.condition import Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of condition."""

    name: str
    severity: Severity
    doc: str
    """When it is active, with its numbers."""
    ends: str
    """What ends it."""


_C, _W, _N = Severity.CRITICAL, Severity.WARNING, Severity.NOTE
KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("crashed", _W, "An instance ended without having been asked to, was condemned, or "
             "could not be started.", "it has been ready for 10 s"),
        Kind("down", _C, "A service should run, and none of its instances has been ready for a "
             "second, after one of them failed or never came up.", "one has been ready for 5 s"),
        Kind("degraded", _W, "Some instances of a service are ready, and one that failed has not "
             "been for a second.", "all of them have been ready for 5 s"),
        Kind("crash_looping", _C, "An instance ended three times within 60 s without having been "
             "asked to.", "it has been ready for 60 s"),
        Kind("parked", _C, "An instance crashed more often than `restart.intensity` allows and is "
             "retried slowly.", "it is ready"),
        Kind("hung", _C, "An instance lives and does not serve: its probes or its watchdog were "
             "silent until the verdict, or its accept queue was not served for a second.",
             "another process of it is ready, or the queue is served"),
        Kind("deploy_failing", _C, "A new version did not come up; the old one goes on, or came "
             "back.", "a rollout or a reload succeeds, or nobody tries again for 10 minutes"),
        Kind("budget_burning", _W, "The error budget is spent faster than the objective allows.",
             "it is not any more"),
        Kind("output_lost", _W, "Output could not be stored.", "output is stored again"),
        Kind("journal_degraded", _W, "The journal cannot be written; entries are held in memory.",
             "the journal is written again"),
        Kind("memory_short", _W, "An instance uses 90 % of its memory limit, for 10 s.",
             "it uses less than 85 %"),
        Kind("descriptors_short", _W, "An instance has 85 % of its open files in use, for 10 s.",
             "it uses less than 75 %"),
        Kind("throttled", _W, "An instance was kept from the CPU by its own limit for a quarter of "
             "the time, for 10 s.", "less than a tenth of the time, for 10 s"),
        Kind("out_of_memory", _C, "The kernel killed a process of an instance for want of memory.",
             "60 s without another one"),
        Kind("queue_full", _C, "The connections that wait to be accepted fill half of the queue, "
             "for 2 s.", "less than a tenth waits"),
        Kind("disk_full", _C, "A file system has less than 2 % of its space or inodes left.",
             "more than 4 % are left"),
        Kind("disk_short", _W, "A file system has less than 10 % of its space or inodes left.",
             "more than 12 % are left"),
        Kind("disk_read_only", _C, "A file system that could be written became read-only.",
             "it can be written"),
        Kind("filling", _W, "The space or the inodes of a file system are forecast to be used up "
             "within 24 h, three times in a row, 5 minutes apart.",
             "the forecast is over twice that"),
        Kind("leaking", _W, "The memory or the open files of an instance grow steadily and are "
             "forecast to be used up within 24 h, three times in a row, 5 minutes apart.",
             "the forecast is over twice that, or another process of it runs"),
        Kind("starved", _W, "Tasks of the machine waited for CPU 60 % of the time, for 30 s (PSI "
             "``cpu some``).", "less than 40 %, for 30 s"),
        Kind("memory_pressure", _W, "Tasks of the machine waited for memory 10 % of the time, for "
             "10 s (PSI ``memory some``).", "less than 5 %, for 10 s"),
        Kind("error_burst", _W, "An instance writes 10 errors or more within 10 s, and five times "
             "as many as it uses to.", "60 s with no more than usual"),
        Kind("new_error", _N, "An error of a kind that the service has never written before.",
             "an hour without another one"),
        Kind("check_failing", _C, "A check of something that everup does not run fails.",
             "it succeeds"),
        Kind("reported", _C, "Another system reports a failure of a subject.",
             "it reports that it is over"),
        Kind("unreached", _W, "A system that everup tells, or a way to notify people, cannot be "
             "reached or refuses what it is told.", "it takes again what it is told"),
        Kind("stale", _W, "A heartbeat did not come in time.", "it comes"),
        Kind("observer_blind", _N, "The observer gets no samples.", "it gets samples again"),
    )
}  # fmt: skip
