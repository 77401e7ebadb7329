"""[defaults] merges into each service; what is wrong there is told once, at its own line."""

from everup.config import check, load
from everup.model.spec import Probe, Service

WEB = '[service.web]\ncommand = ["web"]\n'


def web(text: str) -> Service:
    return load(text, path="e", directory="/srv").service["web"]


def problems(text: str) -> list[str]:
    return [str(problem) for problem in check(text, path="e", directory="/srv").problems]


def test_tables_merge_key_by_key() -> None:
    service = web(
        f"""
        [defaults]
        stop_timeout = "1m"
        watchdog = "5s"
        stop_signal = "QUIT"
        restart = {{ delay = "2s", max_delay = "1m", intensity = {{ limit = 9 }} }}
        environment = {{ A = "1", B = "2" }}
        environment_file = "all.env"
        {WEB}
        restart = {{ delay = "3s", intensity = {{ period = "1m" }} }}
        environment = {{ B = "3" }}
        """
    )
    assert service.stop_timeout == 60
    assert service.stop_signal == "SIGQUIT"
    assert service.watchdog is not None
    assert service.watchdog.interval == 5
    assert (service.restart.delay, service.restart.max_delay) == (3, 60)
    assert (service.restart.intensity.limit, service.restart.intensity.period) == (9, 60)
    assert service.environment == {"A": "1", "B": "3"}
    assert service.environment_file == ("/srv/all.env",)


def test_another_way_to_probe_replaces_the_defaults_way() -> None:
    service = web(
        f"""
        [defaults.probe.liveness]
        http = "/healthz"
        interval = "5s"
        {WEB}
        port = 80
        probe.liveness.tcp = "listen"
        """
    )
    assert service.probe.liveness == Probe(tcp="listen", interval=5.0)


def test_default_probes_of_sockets_skip_services_without() -> None:
    text = f"[defaults.probe.readiness]\nhttp = '/'\n{WEB}"
    report = check(text, path="e", directory="/srv")
    assert report.spec is not None
    assert report.spec.service["web"].probe.readiness is None
    (warning,) = report.warnings
    assert "the default readiness probe needs a listener or a port" in str(warning)


def test_a_oneshot_takes_only_what_fits() -> None:
    service = web(
        f"""
        [defaults]
        replicas = 2
        probe.liveness.exec = ["true"]
        stop_timeout = "1m"
        {WEB}
        type = "oneshot"
        """
    )
    assert (service.replicas, service.probe.liveness, service.stop_timeout) == (1, None, 60)


def test_each_mistake_is_told_once() -> None:
    text = "[defaults]\nreplicas = 'x'\nlog.fils = 1\nstop_signal = 'X'\nport = 1\nfoo = 1\n"
    services = "".join(f"[service.s{i}]\ncommand = ['x']\n" for i in range(3))
    expected = [
        'e:2: defaults.replicas = "x": expected a whole number, 0 to 1000, without quotes',
        "e:3: defaults.log.fils: unknown key; did you mean 'files'?",
        'e:4: defaults.stop_signal = "X": unknown signal',
        "e:5: defaults.port: each service has its own; it cannot have a default",
        "e:6: defaults.foo: unknown key",
    ]
    for found in (problems(text + services), problems(text)):
        assert len(found) == len(expected)
        assert all(a.startswith(b) for a, b in zip(found, expected, strict=True))


def test_a_service_of_that_name_is_no_default() -> None:
    spec = load(
        "[defaults]\nnice = 1\n[service.defaults]\ncommand = ['x']", path="e", directory="/srv"
    )
    assert list(spec.service) == ["defaults"]
    assert spec.service["defaults"].nice == 1
