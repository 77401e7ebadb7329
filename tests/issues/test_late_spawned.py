"""Seed 805: the report of a start came after that of the end, while a post_stop hook ran. The
instance took the dead pid for its own and was killed again and again, for ever."""

from everup.model.event import Hook
from everup.model.instance import ExitCause, ExitKind, Slot, State
from everup.model.record import Instance
from everup.model.spec import Hooks, Service
from everup.supervise.lifecycle import Happening, On, step


def test_a_start_that_is_reported_after_the_end_changes_nothing() -> None:
    service = Service("web", ("serve",), hooks=Hooks(post_stop=("tidy",)))
    instance = Instance(Slot("web", 1), want=True)
    exited = Happening(On.EXITED, cause=ExitCause(ExitKind.CODE, 3))
    for event in (Happening(On.START), Happening(On.SPAWNED, pid=7), exited):
        instance, _ = step(service, instance, event, 0.5, 1.0)
    assert instance.phase == Hook.POST_STOP
    after, effects = step(service, instance, Happening(On.SPAWNED, pid=7), 0.5, 1.1)
    assert (after, effects) == (instance, ())
    done = Happening(On.HOOK_DONE, hook=Hook.POST_STOP)
    assert step(service, after, done, 0.5, 1.2)[0].state is State.STOPPED
