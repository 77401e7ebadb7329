"""Nagios plugins as probes."""

from _everup import FAST_PROBE, SLEEP, Everup, sh

# As a plugin does that forgets a child: the pipe stays open.
PLUGIN = sh(
    'read -r status < status; sleep 1000 & echo "$LC_ALL said $status | x=1"; exit "$status"'
)


def test_a_plugin_that_warns_or_does_not_know_kills_nobody(everup: Everup) -> None:
    status = everup.directory / "status"
    status.write_text("1\n")
    # Nor does a machine that has no time for it: that would be a failure of the probe.
    patient = {**FAST_PROBE, "timeout": "20s", "failure_threshold": 2}
    liveness = {"exec": PLUGIN, "plugin": "yes", **patient}
    everup.up({"web": {"command": SLEEP, "probe": {"liveness": liveness}}}, starvation_max="0s")

    def told(text: str) -> bool:
        probes = everup.instance("web.1")["probes"]
        return text in probes.get("liveness", {}).get("detail", "")

    everup.wait_for(lambda: told("WARNING: C.UTF-8 said 1"), "WARNING is told")
    assert everup.instance("web.1")["probes"]["liveness"]["ok"]
    for code, word in (("3", "UNKNOWN"), ("77", "none of a plugin's")):
        status.write_text(f"{code}\n")
        everup.wait_for(lambda word=word: told(word), f"{word} is told")
    assert everup.instance("web.1")["probes"]["liveness"]["failures"] == 0
    assert everup.instance("web.1")["restarts"] == 0
    status.write_text("2\n")
    assert "CRITICAL" in everup.wait_event("instance.unhealthy", "web.1")["reason"]
