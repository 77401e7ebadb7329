"""Pipelines from a file."""

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everup.tolerate import (
    BreakerOpen,
    Fallback,
    Pipeline,
    Problem,
    Rejected,
    Retry,
    State,
    TableError,
    TimedOut,
    pipelines,
    table,
)
from everup.tolerate.testing import FakeClock

ALL = """
[budget.web]
ratio = 0.5
floor_per_s = 2
window_s = "20s"

[[pipeline.all]]
policy = "fallback"
value = []
last_good_s = "1h30m"

[[pipeline.all]]
policy = "meter"

[[pipeline.all]]
policy = "deadline"
seconds = "1m"

[[pipeline.all]]
policy = "retry"
name = "again"
attempts = "unlimited"
total_s = "1m30s"
backoff = { kind = "decorrelated", base_s = "50ms", cap_s = 2 }
on = ["OSError", "builtins.ValueError", "RateLimited", "everup.tolerate.errors.TimedOut"]
unless = "FileNotFoundError"
budget = "web"

[[pipeline.all]]
policy = "hedge"
delay_s = "100ms"
budget = "web"

[[pipeline.all]]
policy = "breaker"
trip = { kind = "count_window", size = 20, rate = 0.25, slow_s = "2s" }
open_s = { first_s = "5s", cap_s = "1m" }
probes = 2

[[pipeline.all]]
policy = "bulkhead"
limit = 4
queue = 8
order = "lifo"
wait_s = 0.5

[[pipeline.all]]
policy = "limit"
estimator = { kind = "aimd", initial = 5, min = 1, backoff = 0.8 }

[[pipeline.all]]
policy = "rate_limit"
rate = 7
per_s = "1m"
kind = "window"

[[pipeline.all]]
policy = "shed"
by = "throttle"
k = 1.5

[[pipeline.all]]
policy = "timeout"
seconds = "200ms"
thread = false

[[pipeline.all]]
policy = "chaos"
enabled = true
errors = ["OSError"]
error_rate = 1.0
latency_s = ["10ms", 2]

[[pipeline.small]]
policy = "retry"
backoff = 0.0
budget = "web"

[[pipeline.small]]
policy = "breaker"
trip = "time_window"
open_s = "3s"

[[pipeline.small]]
policy = "limit"
estimator = "vegas"

[[pipeline.small]]
policy = "retry"
backoff = "full"

[pipeline]
empty = []
"""


def problems(source: Any) -> list[str]:
    with pytest.raises(TableError) as wrong:
        pipelines(source)
    assert str(wrong.value).splitlines() == [str(one) for one in wrong.value.problems]
    assert isinstance(wrong.value, ValueError)
    return [str(one) for one in wrong.value.problems]


def of(policy: str, **options: Any) -> dict[str, Any]:
    return {"pipeline": {"db": [{"policy": policy, **options}]}}


def one(policy: str, **options: Any) -> Any:
    return pipelines(of(policy, **options))["db"].policies[0]


# -- what is right


def test_all_policies(tmp_path: Path) -> None:
    file = tmp_path / "tolerate.toml"
    file.write_text("\ufeff" + ALL.replace("[pipeline]\nempty = []\n", ""), "utf-8")
    clock = FakeClock()
    made = pipelines(file, clock=clock)
    assert list(made) == ["all", "small"]
    assert all(policy.clock is clock for pipe in made.values() for policy in pipe.policies)
    names = [policy.name for policy in made["all"].policies]
    assert names == [
        "all.fallback", "all.meter", "all.deadline", "again", "all.hedge", "all.breaker",
        "all.bulkhead", "all.limit", "all.rate_limit", "all.shed", "all.timeout", "all.chaos",
    ]  # fmt: skip
    parts: list[Any] = list(made["all"].policies)
    fallback, _, deadline, retry, hedge, breaker, bulkhead, limit, rate, shed, timeout, chaos = (
        parts
    )
    assert (fallback.value, fallback.last_good_s) == ([], 5400.0)
    assert deadline.seconds == 60.0
    assert (retry.attempts, retry.total_s) == (None, 90.0)
    assert retry.judge.on == (OSError, ValueError, table._load("errors.RateLimited"), TimedOut)
    assert retry.judge.unless == (FileNotFoundError,)
    assert retry.backoff(1, 0.0, lambda: 1.0) == pytest.approx(0.15)
    assert (hedge.delay_s, hedge.budget) == (0.1, retry.budget)
    small: Any = made["small"].policies
    assert small[0].budget is retry.budget
    assert retry.budget.name == "web"
    assert (retry.budget.ratio, retry.budget.floor_per_s, retry.budget.window_s) == (0.5, 2, 20.0)
    assert (breaker._trip.size, breaker._trip.rate, breaker._trip.slow_s) == (20, 0.25, 2.0)
    assert (breaker._growing.first_s, breaker._growing.cap_s, breaker._probes) == (5.0, 60.0, 2)
    assert (bulkhead.limit, bulkhead.queue) == (4, 8)
    assert (limit.estimator.initial, limit.estimator.backoff) == (5, 0.8)
    assert (rate.rate, rate.per_s, rate.kind) == (7, 60.0, "window")
    assert shed.by == "throttle"
    assert timeout.seconds == 0.2
    assert (chaos._latency_low_s, chaos._latency_high_s) == (0.01, 2)
    assert small[1]._trip.window_s == 10.0
    assert small[1]._growing.first_s == 3.0
    assert small[0].backoff(1, 0.0, lambda: 1.0) == 0.0
    assert small[3].backoff(1, 0.0, lambda: 1.0) == 0.1
    assert type(small[2].estimator).__name__ == "Vegas"
    assert small[3].name == "small.retry"


def test_what_it_makes_works() -> None:
    clock = FakeClock()
    pipe = pipelines(
        """
        [[pipeline.db]]
        policy = "fallback"
        value = "nothing"
        on = ["BreakerOpen", "OSError"]
        [[pipeline.db]]
        policy = "breaker"
        trip = { kind = "consecutive", failures = 2 }
        open_s = "5s"
        """,
        clock=clock,
    )["db"]
    asked = []

    def down() -> str:
        asked.append(1)
        raise OSError

    assert [pipe.call(down) for _ in range(4)] == ["nothing"] * 4
    assert len(asked) == 2
    breaker: Any = pipe.policies[1]
    assert breaker.state is State.OPEN
    with pytest.raises(BreakerOpen):
        breaker.call(down)


@pytest.mark.parametrize("source", ["", {}, "[pipeline]", "[budget]", "[budget.web]"])
def test_nothing_in_it(source: Any) -> None:
    assert pipelines(source) == {}


def test_a_pipeline_without_members() -> None:
    made = pipelines("[pipeline]\ndb = []")
    assert isinstance(made["db"], Pipeline)
    assert (made["db"].policies, made["db"].name) == ((), "db")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("200ms", 0.2), ("1m30s", 90.0), ("1h 5m", 3900.0), ("1.5s", 1.5), ("1d", 86400.0),
        ("1w", 604800.0), ("0s", 0.0), ("0", 0.0), (2, 2), (0.25, 0.25),
    ],
)  # fmt: skip
def test_durations(written: Any, seconds: float) -> None:
    assert one("deadline", seconds=written).seconds == pytest.approx(seconds)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(1, 999))
def test_durations_add_up(hours: int, minutes: int, ms: int) -> None:
    made = one("timeout", seconds=f"{hours}h{minutes}m{ms}ms")
    assert made.seconds == pytest.approx(hours * 3600 + minutes * 60 + ms / 1000)


@pytest.mark.parametrize("value", ["text", 3, 1.5, True, {"a": 1}, ["x"]])
def test_a_fallback_gives_any_value(value: Any) -> None:
    made = one("fallback", value=value)
    assert isinstance(made, Fallback)
    assert made.value == value


def test_exceptions_of_other_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_errors.py").write_text("class SoldOut(Exception): pass\nlimit = 3\n")
    (tmp_path / "shop_broken.py").write_text("raise KeyError('at import')\n")
    (tmp_path / "shop_lacks.py").write_text("import no_such_module_here\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made: Retry = one("retry", on="shop_errors.SoldOut")
    assert made.judge.on == (sys.modules["shop_errors"].SoldOut,)
    assert problems(of("retry", on=["shop_errors.SoldOt", "shop_errors.limit"])) == [
        "pipeline.db[0].on[0] = \"shop_errors.SoldOt\": there is no 'SoldOt' in shop_errors; "
        "did you mean 'SoldOut'?",
        'pipeline.db[0].on[1] = "shop_errors.limit": no subclass of Exception: nothing else is a '
        "failure",
    ]
    assert problems(of("retry", on=["shop_broken.X", "shop_lacks.X"])) == [
        "pipeline.db[0].on[0] = \"shop_broken.X\": its import raised KeyError: 'at import'",
        'pipeline.db[0].on[1] = "shop_lacks.X": its import raised ModuleNotFoundError: No module '
        "named 'no_such_module_here'",
    ]


# -- what is wrong

NAMES = ", ".join(table.POLICIES)
DURATION = 'a duration, like "200ms", "5s", "1m30s" or "2h", or a number of seconds'


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "pipelin = 1",
            "pipelin: unknown key; did you mean 'pipeline'?; valid: pipeline, policy, budget",
        ),
        ("xyz.a = 1", "xyz: unknown key; valid: pipeline, policy, budget"),
        ("pipeline = 3", "pipeline = 3: expected tables with a name: [[pipeline.NAME]]"),
        ("budget = []", "budget = []: expected tables with a name: [budget.NAME]"),
        ("budget.web = 1", "budget.web = 1: expected a table"),
        (
            '[pipeline."a b"]\npolicy = "retry"',
            'pipeline."a b" = {"policy": "retry"}: expected an array of tables: [[pipeline."a b"]]',
        ),
        (
            "[pipeline]\ndb = [1]",
            'pipeline.db[0] = 1: expected a table, like { policy = "retry" }',
        ),
        ("[[pipeline.db]]", f"pipeline.db[0]: policy is missing; valid: {NAMES}"),
        (
            of("Retri"),
            "pipeline.db[0].policy = \"Retri\": unknown policy; did you mean 'retry'?; "
            f"valid: {NAMES}",
        ),
        (of("vote"), f'pipeline.db[0].policy = "vote": unknown policy; valid: {NAMES}'),
        (of([]), f"pipeline.db[0].policy = []: unknown policy; valid: {NAMES}"),  # type: ignore[arg-type]
        (
            of("timeout", secnds=1, seconds=1),
            "pipeline.db[0].secnds: unknown key; did you mean 'seconds'?; "
            "valid: seconds, name, thread, max_hung",
        ),
        (of("timeout"), f"pipeline.db[0]: seconds is missing: expected {DURATION}"),
        (
            of("retry", when="x"),
            "pipeline.db[0].when: takes a Python object, which no table can give",
        ),
        (
            of("retry", attempts="3"),
            'pipeline.db[0].attempts = "3": expected a whole number, or "unlimited"',
        ),
        (
            of("retry", attempts=True),
            'pipeline.db[0].attempts = true: expected a whole number, or "unlimited"',
        ),
        (
            of("hedge", delay_s=1, attempts="unlimited"),
            'pipeline.db[0].attempts = "unlimited": expected a whole number',
        ),
        (
            of("retry", attempts=0),
            "pipeline.db[0].attempts = 0: attempts must be a whole number, 1 or more, not 0",
        ),
        (
            of("retry", attempts="unlimited"),
            'pipeline.db[0].attempts = "unlimited": without a limit of attempts there must be a '
            "total_s",
        ),
        (
            of("retry", total_s="soon"),
            f'pipeline.db[0].total_s = "soon": expected {DURATION}',
        ),
        (
            of("retry", total_s=float("inf")),
            f"pipeline.db[0].total_s = Infinity: expected {DURATION}",
        ),
        (of("deadline", seconds="5 parsecs"), f'pipeline.db[0].seconds = "5 parsecs": expected {DURATION}'),  # noqa: E501
        (of("rate_limit", rate="x"), 'pipeline.db[0].rate = "x": expected a number'),
        (of("rate_limit", rate=float("nan")), "pipeline.db[0].rate = NaN: expected a number"),
        (of("timeout", seconds=1, thread=1), "pipeline.db[0].thread = 1: expected true or false"),
        (of("meter", name=3), "pipeline.db[0].name = 3: expected a string in quotes"),
        (
            of("rate_limit", rate=1, kind="tokens"),
            "pipeline.db[0].kind = \"tokens\": unknown choice; did you mean 'token'?; valid: "
            "token, window",
        ),
        (
            of("bulkhead", wait_s=1),
            "pipeline.db[0].wait_s = 1: wait_s needs a queue",
        ),
        (
            of("retry", budget="web"),
            'pipeline.db[0].budget = "web": there is no such budget',
        ),
        (
            of("retry", budget="web") | {"budget": {"wbe": {}}},
            "pipeline.db[0].budget = \"web\": there is no such budget; did you mean 'wbe'?; "
            "valid: wbe",
        ),
        (of("retry", budget=1), "pipeline.db[0].budget = 1: there is no such budget"),
        (
            of("retry", backoff="ful"),
            "pipeline.db[0].backoff = \"ful\": unknown kind; did you mean 'full'?; valid: full, "
            "equal, decorrelated, exponential, linear, constant",
        ),
        (
            of("retry", backoff="1 fortnight"),
            f'pipeline.db[0].backoff = "1 fortnight": expected {DURATION}; or a kind, or a table '
            "with one",
        ),
        (
            of("retry", backoff={"base_s": 1}),
            "pipeline.db[0].backoff: kind is missing; valid: full, equal, decorrelated, "
            "exponential, linear, constant",
        ),
        (
            of("retry", backoff={"kind": 1}),
            "pipeline.db[0].backoff.kind = 1: unknown kind; valid: full, equal, decorrelated, "
            "exponential, linear, constant",
        ),
        (
            of("retry", backoff={"kind": "equal", "base_s": "2s", "cap_s": "1s"}),
            'pipeline.db[0].backoff.cap_s = "1s": cap_s must be 2 or more, and finite, not 1.0',
        ),
        (
            of("retry", backoff={"kind": "constant", "delay": 1}),
            "pipeline.db[0].backoff.delay: unknown key; did you mean 'delay_s'?; valid: delay_s",
        ),
        (
            of("breaker", trip=3),
            'pipeline.db[0].trip = 3: expected a kind, like "consecutive", or a table with one',
        ),
        (
            of("limit", estimator=[]),
            'pipeline.db[0].estimator = []: expected a kind, like "gradient2", or a table with one',
        ),
        (
            of("breaker", open_s=[]),
            f"pipeline.db[0].open_s = []: expected {DURATION}; or a table",
        ),
        (
            of("breaker", open_s={"first_s": "1s", "jitter": 2}),
            "pipeline.db[0].open_s.jitter = 2: jitter must be from 0 to below 1, not 2",
        ),
        (
            of("chaos", latency_s=[1, 2, 3]),
            f"pipeline.db[0].latency_s = [1, 2, 3]: expected {DURATION}; or a list of two, the "
            "shortest and the longest",
        ),
        (
            of("chaos", latency_s=[1, "x"]),
            f'pipeline.db[0].latency_s = [1, "x"]: expected {DURATION}; or a list of two, the '
            "shortest and the longest",
        ),
        (
            of("retry", on=3),
            'pipeline.db[0].on = 3: expected the name of an exception, like "OSError", or a list '
            "of such names",
        ),
        (
            of("retry", on="ConectionError"),
            "pipeline.db[0].on = \"ConectionError\": there is no 'ConectionError' in Python or "
            "everup.tolerate; did you mean 'ConnectionError'?",
        ),
        (
            of("retry", on="TimdOut"),
            "pipeline.db[0].on = \"TimdOut\": there is no 'TimdOut' in Python or everup.tolerate; "
            "did you mean 'TimedOut'?",
        ),
        (
            of("retry", on="no_such.Thing"),
            "pipeline.db[0].on = \"no_such.Thing\": there is no module 'no_such'",
        ),
        (
            of("retry", on="os.nothing.Thing"),
            "pipeline.db[0].on = \"os.nothing.Thing\": there is no module 'os.nothing'",
        ),
        (
            of("retry", on="asyncio.CancelledError"),
            'pipeline.db[0].on = "asyncio.CancelledError": no subclass of Exception: nothing else '
            "is a failure",
        ),
        (
            of("retry", on="print"),
            'pipeline.db[0].on = "print": no subclass of Exception: nothing else is a failure',
        ),
        (of("fallback"), "pipeline.db[0]: give value, function or last_good_s"),
        (
            of("shed", by="priority"),
            "pipeline.db[0].by = \"priority\": by='priority' needs load",
        ),
        (
            of("chaos", result_rate=0.5),
            "pipeline.db[0].result_rate = 0.5: result_rate needs result, a function that gives it",
        ),
        (
            of("retry", name="x" * 100, attempts=[1] * 50),
            f'pipeline.db[0].attempts = {str([1] * 50)[:77]}...: expected a whole number, or '
            '"unlimited"',
        ),
    ],
)  # fmt: skip
def test_each_problem(source: Any, told: str) -> None:
    assert problems(source) == [told]


def test_all_problems_at_once() -> None:
    told = problems(
        """
        surprise = 1

        [budget.web]
        ratio = -1
        window_s = "-5s"

        [[pipeline.db]]
        policy = "retry"
        atempts = 3
        total_s = 0
        max_delay_s = -1
        budget = "web"

        [[pipeline.db]]
        policy = "timeout"
        max_hung = 0

        [[pipeline.web]]
        policy = "rate_limit"
        rate = "many"
        per_s = 0
        wait_s = "-1s"

        [[pipeline.web]]
        policy = "bulkhead"
        queue = "long"
        wait_s = "1s"
        limit = 0
        """
    )
    assert [line.split(": ")[0] for line in told] == [
        "surprise",
        'budget.web.window_s = "-5s"',
        "budget.web.ratio = -1",
        "pipeline.db[0].atempts",
        "pipeline.db[0].total_s = 0",
        "pipeline.db[0].max_delay_s = -1",
        "pipeline.db[1]",
        "pipeline.db[1].max_hung = 0",
        'pipeline.web[0].rate = "many"',
        'pipeline.web[0].wait_s = "-1s"',
        "pipeline.web[0].per_s = 0",
        'pipeline.web[1].queue = "long"',
        "pipeline.web[1].limit = 0",
    ]


def test_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tolerate.toml"
    file.write_text("[[pipeline.db]]\npolicy = 3\n")
    assert problems(file)[0].startswith(f"{file}: pipeline.db[0].policy = 3: unknown policy; valid")
    file.write_bytes(b"\xff")
    assert problems(file)[0].startswith(f"{file}: 'utf-8' codec can't decode")
    file.write_text("a = ")
    assert problems(file)[0].startswith(f"{file}: Invalid value")
    file.unlink()
    with pytest.raises(FileNotFoundError):
        pipelines(file)


def test_what_is_no_toml() -> None:
    assert problems("[pipeline") == [
        "Expected ']' at the end of a table declaration (at end of document)"
    ]
    (told,) = problems("conf/tolerate.toml")
    assert told.endswith("this is read as TOML: for a file, give a Path")


def test_problems_can_be_looked_at() -> None:
    with pytest.raises(TableError) as wrong:
        pipelines(of("retry", attempts=0))
    assert wrong.value.problems == [
        Problem(
            "",
            "pipeline.db[0].attempts",
            "0",
            "attempts must be a whole number, 1 or more, not 0",
            (),
        )
    ]


# -- that it keeps up with the constructors


def things() -> list[tuple[str, Any]]:
    parts = [name for kinds in table.PARTS.values() for name in kinds.values()]
    names = [*table.POLICIES.values(), *parts, "_windows.Growing", "budget.RetryBudget"]
    return [(name, table._load(name)) for name in names]


@pytest.mark.parametrize(("name", "kind"), things())
def test_every_option_of_every_constructor_is_known(name: str, kind: Any) -> None:
    """Options are read from the signatures; this says that they are read as ``inspect`` does, and
    that what is not offered takes what no file can hold."""
    forms, required = table.options(kind)
    parameters = inspect.signature(kind).parameters
    assert list(forms) == list(parameters)
    assert required == {key for key, one in parameters.items() if one.default is one.empty}
    for key, form in forms.items():
        text = inspect.formatannotation(parameters[key].annotation).replace("'", "")
        if form is None:
            object_ = key == "clock" or key == "watch" or re.search(r"Callable|Number", text)
            assert object_, f"{name}.{key}: {text}"
        elif isinstance(form, tuple):
            assert text.replace('"', "").endswith(f"Literal[{', '.join(form)}]")
        else:
            assert form in (*table._HELP, "any", "budget")
            expected = {
                "whole": "int", "attempts": "int", "number": "float", "duration": "float",
                "text": "str", "flag": "bool", "growing": "float", "range": "float",
            }.get(form)  # fmt: skip
            text = text.replace("Seconds", "float")  # a duration may be a timedelta, too
            assert expected is None or expected in text.split(" | ")


@pytest.mark.parametrize(("name", "kind"), things())
def test_whatever_ends_in_s_is_a_time(name: str, kind: Any) -> None:
    forms, _ = table.options(kind)
    timed = {"duration", "growing", "range"}
    for key, form in forms.items():
        is_time = (key.endswith("_s") and key != "floor_per_s") or key == "seconds"
        assert (form in timed) == is_time, f"{name}.{key}"


def test_the_documented_policies_are_the_real_ones() -> None:
    text = " ".join((pipelines.__doc__ or "").split())
    assert f"({', '.join(table.POLICIES)})" in text
    (example,) = re.findall(r"example::\n(.*)$", table.__doc__ or "", re.DOTALL)
    assert len(pipelines(textwrap.dedent(example))["db"].policies) == 2


def test_rejections_and_what_they_need_are_found_by_their_bare_names() -> None:
    from everup.tolerate import errors

    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert one("retry", on=name).judge.on == (kind,)
    assert one("retry", on="Rejected").judge.rejections == (Rejected,)


def test_nested_too_deeply() -> None:
    assert len(problems("a = " + "[" * 100_000)) == 1


def test_a_budget_may_have_a_name_of_its_own() -> None:
    source = """
        [budget.web]
        name = "orders"
        [[pipeline.db]]
        policy = "retry"
        budget = "web"
        """
    (retry,) = pipelines(source)["db"].policies
    assert isinstance(retry, Retry)
    assert retry.budget is not None
    assert retry.budget.name == "orders"
    assert problems("[budget.web]\nname = 3") == [
        "budget.web.name = 3: expected a string in quotes"
    ]


# -- shared by several pipelines

SHARED = """
[policy.db]
policy = "breaker"
trip = { kind = "consecutive", failures = 1 }
[[pipeline.read]]
policy = "retry"
attempts = 1
[[pipeline.read]]
use = "db"
[[pipeline.write]]
use = "db"
[[pipeline.other]]
policy = "breaker"
"""


def test_a_policy_of_several_pipelines_is_one() -> None:
    made = pipelines(SHARED)
    (breaker,) = made["write"].policies
    assert made["read"].policies[1] is breaker
    assert [one.name for one in made["read"].policies] == ["read.retry", "db"]
    assert [one.name for one in made["other"].policies] == ["other.breaker"]
    with pytest.raises(ZeroDivisionError):
        made["read"].call(lambda: 1 / 0)
    with pytest.raises(BreakerOpen, match=r"^db: open"):
        made["write"].call(len, "a")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            SHARED.replace('use = "db"', 'use = "dbb"', 1),
            ["pipeline.read[1].use = \"dbb\": there is no such [policy.NAME]; did you mean 'db'?; "
             "valid: db"],
        ),
        (
            SHARED.replace('use = "db"', 'use = "db"\nopen_s = 5', 1),
            ["pipeline.read[1].open_s: what is shared has its options where it is made"],
        ),
        (
            SHARED.replace('use = "db"', "use = 5", 1),
            ["pipeline.read[1].use = 5: there is no such [policy.NAME]; valid: db"],
        ),
        (
            SHARED.replace('policy = "breaker"', 'policy = "braker"', 1),
            ["policy.db.policy = \"braker\": unknown policy; did you mean 'breaker'?; valid: "],
        ),
        (
            SHARED.replace('policy = "breaker"', 'use = "db"', 1),
            ["policy.db: policy is missing; valid: "],
        ),
        ("policy = 5", ["policy = 5: expected tables with a name: [policy.NAME]"]),
        ("[policy]\ndb = 5", ["policy.db = 5: expected a table, like { policy = \"retry\" }"]),
    ],
)  # fmt: skip
def test_what_can_be_wrong_with_a_shared_one(text: str, problems: list[str]) -> None:
    with pytest.raises(TableError) as caught:
        pipelines(text)
    told = str(caught.value).splitlines()
    assert len(told) == len(problems)
    for one, begins in zip(told, problems, strict=True):
        assert one.startswith(begins)
