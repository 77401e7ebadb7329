"""Restart engine: what follows when a process has ended by itself."""

from dataclasses import dataclass
from enum import Enum

from everup.model.instance import ExitCause, ExitKind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Restart, Service

_MAX_DOUBLINGS = 40  # 2**40 times any delay is above every cap


class Next(Enum):
    """The closed set of answers."""

    AGAIN = "start again at once"
    BACKOFF = "start again after a delay"
    PARK = "too many crashes: start again slowly"
    DONE = "its work is done"
    FAIL = "the policy says not to start it again"


@dataclass(frozen=True, slots=True)
class Decision:
    next: Next
    delay_s: float
    reason: str


def is_failure(cause: ExitCause, restart: Restart) -> bool:
    """Whether the end of a process is a failure of the service."""
    return bool(cause.killed_for) or not (
        cause.kind is ExitKind.CODE and cause.value in restart.success_exit
    )


def policy_of(service: Service) -> str:
    """The policy in force; a oneshot does not restart unless asked to."""
    return service.restart.policy or ("never" if service.type == "oneshot" else "always")


def backoff_s(restart: Restart, attempt: int, u: float) -> float:
    """Delay before a restart after ``attempt`` failures in a row; ``u`` is random in [0, 1).

    Exponential with a cap; jitter as in Brooker, "Exponential Backoff and Jitter" (AWS, 2015).
    The first restart is immediate.
    """
    if attempt <= 1:
        return 0.0
    whole = min(restart.max_delay, restart.delay * 2.0 ** min(attempt - 2, _MAX_DOUBLINGS))
    match restart.jitter:
        case "full":
            return whole * u
        case "equal":
            return whole * (0.5 + 0.5 * u)
        case "none":
            return whole


def after_exit(
    service: Service, instance: Instance, cause: ExitCause, u: float, now: float
) -> tuple[Instance, Decision]:
    """Count the end and decide. The instance comes back with its counters brought forward."""
    restart = service.restart
    failure = is_failure(cause, restart)
    policy = policy_of(service)
    if not failure and service.type == "oneshot":
        return replace(instance, done=True, attempt=0), Decision(Next.DONE, 0.0, "done")
    if policy == "never" or (policy == "on-failure" and not failure):
        if failure:
            return instance, Decision(Next.FAIL, 0.0, f"{cause}; restart policy is {policy}")
        return instance, Decision(Next.DONE, 0.0, f"{cause}; restart policy is {policy}")

    up_s = 0.0 if instance.up_at is None else now - instance.up_at
    stable = instance.up_at is not None and up_s >= restart.reset_after
    window = restart.intensity.period
    recent = tuple(t for t in instance.crashes if now - t < window)
    # One more than the limit is enough to know; the tuple never grows past that.
    crashes = (*recent, now)[-(restart.intensity.limit + 1) :]
    attempt = 1 if stable else instance.attempt + 1
    parked = instance.parked and not stable
    counted = replace(instance, crashes=crashes, attempt=attempt, parked=parked)
    if parked or len(crashes) > restart.intensity.limit:
        reason = f"{cause}; crashed {len(crashes)} times within {window:g} s"
        if parked:
            reason = f"{cause}; still failing"
        return (
            replace(counted, parked=True),
            Decision(Next.PARK, restart.park_interval, reason),
        )
    delay = backoff_s(restart, attempt, u)
    return counted, Decision(Next.BACKOFF if delay > 0 else Next.AGAIN, delay, str(cause))
