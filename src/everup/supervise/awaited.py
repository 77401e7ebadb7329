"""What a process that starts has yet to show, in words for people."""

from everup.model.record import Instance
from everup.model.server import known_server
from everup.model.spec import Service


def missing(service: Service, instance: Instance) -> str:
    """What is missing for it to count as started; "" if nothing is."""
    if not instance.has_process:
        return "it does not run yet"
    if service.notify and not instance.said_ready:
        server = known_server(service.command)
        if server is not None and not server.says_ready:
            return (
                f"READY=1 was awaited (notify = true), and {server.name} does not send it; "
                "leave notify out, a probe can say when it is ready"
            )
        return "READY=1 was awaited (notify = true) and did not come"
    if instance.proven or service.startup is None:
        return ""
    if service.probe.startup is not None:
        return "its startup probe has not succeeded"
    addresses = service.listen[0].address
    said = "it said READY=1, but " if instance.said_ready else ""
    return f"{said}it has accepted no connection on {addresses}"


def asks_startup(service: Service, instance: Instance) -> bool:
    """Tell whether its startup probe is to be run now. One that nobody asked for waits for READY=1:
    a server that speaks for itself is not to be bothered before."""
    if service.probe.startup is not None:
        return True
    return service.startup is not None and (instance.said_ready or not service.notify)
