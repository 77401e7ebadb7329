"""Series: what samples come to, what is stored, and what is read back."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.observer.events import Sampled, Wrote
from everup.rooms.monitor.cli import sparkline
from everup.rooms.monitor.points import DISK, INSTANCE, MACHINE, points
from everup.rooms.monitor.series import TIERS, Store, read, subjects

BEGIN = 1_000_000.0
NAMES = ("a", "b")


def sampled(mono: float, cpu_s: float, **more: float) -> Sampled:
    return Sampled(
        BEGIN + mono,
        mono,
        {"cpus": 2.0, "cpu_user_s": cpu_s, "memory_total_bytes": 100.0, **more},
        {"web.1": {"cpu_s": cpu_s, "rss_bytes": 50.0, "fds": 7.0}},
        {"web.1": (3, 128)},
        {"/": {"size_bytes": 100.0, "available_bytes": 25.0}},
    )


def test_what_two_samples_come_to() -> None:
    found = dict(points(sampled(2.0, 1.0), sampled(0.0, 0.0), {"web.1": Wrote(10, 4)}, wrote_s=2.0))
    names, values = found["web.1"]
    web = dict(zip(names, values, strict=True))
    assert names == INSTANCE
    assert (web["cpu_percent"], web["memory_bytes"], web["queue"]) == (50.0, 50.0, 3.0)
    assert (web["lines_s"], web["errors_s"]) == (5.0, 2.0)
    assert math.isnan(web["read_bytes_s"])
    names, values = found["machine"]
    assert names == MACHINE
    assert values[0] == 25.0
    names, values = found["/"]
    assert (names, values[0]) == (DISK, 75.0)


def test_a_counter_that_begins_anew_is_no_point() -> None:
    found = dict(points(sampled(2.0, 1.0), sampled(0.0, 5.0), {}, 0.0))
    assert math.isnan(found["web.1"][1][0])


def test_the_first_sample_has_no_rates() -> None:
    found = dict(points(sampled(2.0, 1.0), None, {}, 0.0))
    assert math.isnan(found["web.1"][1][0])
    assert found["web.1"][1][1] == 50.0


def test_what_is_put_is_read_by_each_tier(tmp_path: Path) -> None:
    store = Store(tmp_path / "series")
    for second in range(3600):
        store.put("web.1", NAMES, BEGIN + second, (float(second), math.nan))
    store.close()
    folder = tmp_path / "series"
    assert subjects(folder) == ["web.1"]
    names, fine = read(folder, "web.1", BEGIN + 3000, BEGIN + 3600)
    assert names == NAMES
    assert [p.means[0] for p in fine] == [float(s) for s in range(3000, 3600)]
    assert all(math.isnan(p.means[1]) for p in fine)
    _, coarse = read(folder, "web.1", BEGIN, BEGIN + 3600)
    assert len(coarse) == 360
    assert (coarse[0].means[0], coarse[0].most[0]) == (4.5, 9.0)
    _, month = read(folder, "web.1", BEGIN - 20 * 86400, BEGIN + 3600)
    assert len(month) == 7  # BEGIN is not at the beginning of a step


def test_a_ring_forgets_and_stays_small(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for second in range(5000):
        store.put("machine", NAMES, BEGIN + second, (1.0, 2.0))
    store.close()
    _, fine = read(tmp_path, "machine", BEGIN + 4100, BEGIN + 5000)
    assert len(fine) == TIERS[0].records
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["machine.1s"] == 512 + 900 * (8 + 4 * 4)


def test_another_store_goes_on_and_other_metrics_begin_anew(tmp_path: Path) -> None:
    for begin in (0, 10):
        store = Store(tmp_path)
        for second in range(begin, begin + 10):
            store.put("/var/log", NAMES, BEGIN + second, (1.0, 2.0))
        store.close()
    assert subjects(tmp_path) == ["/var/log"]
    assert len(read(tmp_path, "/var/log", BEGIN, BEGIN + 100)[1]) == 20
    store = Store(tmp_path)
    store.put("/var/log", ("c",), BEGIN, (1.0,))
    store.close()
    assert read(tmp_path, "/var/log", BEGIN, BEGIN + 100)[0] == ("c",)


def test_a_damaged_file_is_told_or_read_as_far_as_it_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for second in range(100):
        store.put("a", NAMES, BEGIN + second, (1.0, 2.0))
    store.close()
    path = tmp_path / "a.1s"
    whole = path.read_bytes()
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no file of series"):
        read(tmp_path, "a", BEGIN, BEGIN + 100)
    path.write_bytes(whole[: len(whole) // 2])
    assert 0 <= len(read(tmp_path, "a", BEGIN, BEGIN + 100)[1]) < 100


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(-1e6, 1e6)), max_size=50))
def test_no_point_is_read_that_was_not_put(steps: list[tuple[float, float]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store, at, put = Store(Path(folder) / "s"), BEGIN, set()
        for passed, value in steps:
            at += passed
            store.put("x", ("v",), at, (value,))
            put.add(float(int(at)))
        store.close()
        if steps:
            found = read(Path(folder) / "s", "x", at - 899.0, at)[1]
            assert {p.at for p in found} <= put
            assert len(found) == len({p.at for p in found})


def test_a_line_of_bars() -> None:
    line = sparkline([(0.0, 0.0), (1.0, 5.0), (3.0, 10.0)], 0.0, 4.0, 4)
    assert line == "▁▅ █"
    assert sparkline([], 0.0, 1.0, 3) == "   "
    assert sparkline([(0.0, 7.0)], 0.0, 1.0, 1) == "█"
