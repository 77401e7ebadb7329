"""everup.reliability beside the Python packages reliability and lifelines: agreement and time.

The same inputs go to both sides, each in a process of its own per row: the first call counts with
its imports, the later ones without. The packages live in an environment of their own:

    python3 -m venv ~/.cache/everup-bench/reliability
    ~/.cache/everup-bench/reliability/bin/pip install reliability lifelines

Run: ``python bench/reliability.py --markdown``; about a minute.
"""

import argparse
import importlib.metadata
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "everup-bench"
PEERS = CACHE / "reliability" / "bin" / "python"
GOAL = 1e-6
Inputs = dict[str, Any]
Values = list[float]

# --- what is computed: one function a side; imports inside, since they are measured --------------


def mtbf_lower_ours(data: Inputs) -> Values:
    from everup.reliability.rates import mttf_s

    return [mttf_s(data["failures"], data["time_s"]).low]


def mtbf_lower_reliability(data: Inputs) -> Values:
    from reliability.Reliability_testing import reliability_test_planner as planner

    found = planner(
        number_of_failures=data["failures"],
        test_duration=data["time_s"],
        CI=0.95,
        one_sided=False,
        time_terminated=True,
        print_results=False,
    )
    return [found.MTBF]


def weibull_ours(data: Inputs) -> Values:
    from everup.reliability.lifetimes import weibull

    fit = weibull(data["times"], data["failed"])
    assert fit is not None
    return [fit.shape.value or 0, fit.scale_s.value or 0, fit.log_likelihood]


def weibull_lifelines(data: Inputs) -> Values:
    from lifelines import WeibullFitter

    fit = WeibullFitter().fit(data["times"], data["failed"])
    return [fit.rho_, fit.lambda_, fit.log_likelihood_]


def _fit_reliability(data: Inputs) -> Any:
    from reliability.Fitters import Fit_Weibull_2P

    pairs = list(zip(data["times"], data["failed"], strict=True))
    return Fit_Weibull_2P(
        failures=[t for t, f in pairs if f],
        right_censored=[t for t, f in pairs if not f] or None,
        show_probability_plot=False,
        print_results=False,
    )


def weibull_reliability(data: Inputs) -> Values:
    fit = _fit_reliability(data)
    return [fit.beta, fit.alpha, fit.loglik]


def fisher_ours(data: Inputs) -> Values:
    from everup.reliability.lifetimes import weibull

    fit = weibull(data["times"], data["failed"])
    assert fit is not None
    shape, scale = fit.shape_fisher, fit.scale_fisher_s
    return [shape.low, shape.high, scale.low, scale.high]


def fisher_reliability(data: Inputs) -> Values:
    fit = _fit_reliability(data)
    return [fit.beta_lower, fit.beta_upper, fit.alpha_lower, fit.alpha_upper]


def survival_ours(data: Inputs) -> Values:
    from everup.reliability.lifetimes import kaplan_meier

    curve = kaplan_meier(data["times"], data["failed"], band="log-log")
    rows = zip(curve.survival, curve.low, curve.high, strict=True)
    # Where nobody or everybody failed Greenwood says nothing, and each fills the band as it likes.
    return [x for row in rows if 0 < row[0] < 1 for x in row]


def survival_lifelines(data: Inputs) -> Values:
    from lifelines import KaplanMeierFitter

    curve = KaplanMeierFitter().fit(data["times"], data["failed"])
    survival = curve.survival_function_.iloc[:, 0].tolist()
    bounds = curve.confidence_interval_.to_numpy().tolist()
    rows = [(s, *b) for s, b in zip(survival, bounds, strict=True)]
    return [x for row in rows if 0 < row[0] < 1 for x in row]


def steps_ours(data: Inputs) -> Values:
    from everup.reliability.lifetimes import kaplan_meier

    return list(kaplan_meier(data["times"], data["failed"]).survival)


def steps_reliability(data: Inputs) -> Values:
    from reliability.Nonparametric import KaplanMeier

    pairs = list(zip(data["times"], data["failed"], strict=True))
    curve = KaplanMeier(
        failures=[t for t, f in pairs if f],
        right_censored=[t for t, f in pairs if not f] or None,
        print_results=False,
        show_plot=False,
    )
    return [float(x) for x in curve.KM]


def median_ours(data: Inputs) -> Values:
    from everup.reliability.lifetimes import kaplan_meier

    found = kaplan_meier(data["times"], data["failed"], band="log-log").median_s
    return [found.value or 0, found.low, found.high]


def median_lifelines(data: Inputs) -> Values:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import median_survival_times

    curve = KaplanMeierFitter().fit(data["times"], data["failed"])
    bounds = median_survival_times(curve.confidence_interval_).to_numpy()[0].tolist()
    return [float(curve.median_survival_time_), *bounds]


def growth_ours(data: Inputs) -> Values:
    from everup.reliability.growth import Window, mtbf_bounds, power_law

    mtbf_bounds.cache_clear()  # else every later call finds the interval's factors
    law = power_law([Window(data["at"], data["at"][-1], "failure")])
    assert law is not None
    assert law.mtbf_s is not None
    return [law.beta, law.scale, law.mtbf_s.value or 0]


def growth_reliability(data: Inputs) -> Values:
    from reliability.Repairable_systems import reliability_growth

    found = reliability_growth(
        times=data["at"], model="Crow-AMSAA", print_results=False, show_plot=False
    )
    return [found.Beta, found.Lambda, found.DMTBF_I]


def laplace_ours(data: Inputs) -> Values:
    from everup.reliability.growth import Window, laplace_test, mtbf_bounds, power_law

    mtbf_bounds.cache_clear()
    windows = [Window(data["at"], data["end"])]
    law = power_law(windows)
    assert law is not None
    return [laplace_test(windows).statistic, law.beta, law.scale]


def laplace_reliability(data: Inputs) -> Values:
    from reliability.Repairable_systems import ROCOF

    between = [b - a for a, b in zip([0, *data["at"]], data["at"], strict=False)]
    found = ROCOF(
        times_between_failures=between, test_end=data["end"], print_results=False, show_plot=False
    )
    return [found.U, found.Beta_hat, found.Lambda_hat]


Side = Callable[[Inputs], Values]
ROWS: dict[str, tuple[str, Side, Side]] = {
    "MTBF, lower bound": ("reliability", mtbf_lower_ours, mtbf_lower_reliability),
    "Weibull, 20 lives": ("lifelines", weibull_ours, weibull_lifelines),
    "Weibull, 20 lives ": ("reliability", weibull_ours, weibull_reliability),
    "Weibull, 2000 lives": ("lifelines", weibull_ours, weibull_lifelines),
    "Weibull, 2000 lives ": ("reliability", weibull_ours, weibull_reliability),
    "Fisher intervals, 20 lives": ("reliability", fisher_ours, fisher_reliability),
    "Kaplan-Meier, log-log band, 2000 lives": ("lifelines", survival_ours, survival_lifelines),
    "Kaplan-Meier, steps, 200 lives": ("reliability", steps_ours, steps_reliability),
    "median survival, 2000 lives": ("lifelines", median_ours, median_lifelines),
    "Crow-AMSAA, 22 failures": ("reliability", growth_ours, growth_reliability),
    "Laplace and power law, 22 failures": ("reliability", laplace_ours, laplace_reliability),
}


def inputs(row: str) -> Inputs:
    if row.startswith("MTBF"):
        return {"failures": 5, "time_s": 3.6e6}
    if "22 failures" in row:
        rng = random.Random(22)
        at = sorted(620 * rng.random() ** (1 / 0.5) for _ in range(22))
        return {"at": at, "end": 700.0}
    count = int(row.split(", ")[-1].split()[0])
    rng = random.Random(count)
    ages = [rng.weibullvariate(86400.0, 1.6) for _ in range(count)]
    limits = [rng.expovariate(1 / 150000) for _ in range(count)]
    return {
        "times": [min(a, b) for a, b in zip(ages, limits, strict=True)],
        "failed": [a <= b for a, b in zip(ages, limits, strict=True)],
    }


# --- one side of one row, in a process of its own -------------------------------------------------


def measure(row: str, which: int, calls: int) -> None:
    """Prints the values, the time of the first call with imports, and the median of later ones."""
    warnings.simplefilter("ignore")
    os.environ["MPLBACKEND"] = "Agg"
    peer, ours, theirs = ROWS[row]
    data, call = inputs(row), theirs if which else ours
    start = time.perf_counter()
    values = call(data)
    first_s = time.perf_counter() - start
    later = []
    for _ in range(calls):
        start = time.perf_counter()
        call(data)
        later.append(time.perf_counter() - start)
    found: Inputs = {"values": [float(v) for v in values], "first_s": first_s}
    if which:
        found["version"] = importlib.metadata.version(peer)
    print(json.dumps({**found, "later_s": statistics.median(later)}))


def ask(python: str, row: str, which: int, calls: int) -> Inputs:
    # -I: not this directory, in which a file is called reliability.py.
    argv = [python, "-I", str(Path(__file__).resolve()), "--row", row, "--side", str(which)]
    done = subprocess.run(
        [*argv, "--calls", str(calls)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    answer: Inputs = json.loads(done.stdout.splitlines()[-1])
    return answer


def difference(ours: Values, theirs: Values) -> float:
    """Greatest relative difference; infinite if one side has more values."""
    if len(ours) != len(theirs):
        return math.inf
    return max(
        0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
        for a, b in zip(ours, theirs, strict=True)
    )


def compare(args: argparse.Namespace) -> int:
    from _common import Report, Table, say, wanted

    if not PEERS.exists():
        say("no environment with the packages reliability and lifelines: skipped; see the head")
        return 0
    options = {"calls": args.calls, "goal": GOAL}
    report = Report("reliability", options)
    table = Table(
        "Agreement and time: everup beside reliability and lifelines",
        ["computation", "peer", "rel. difference", "first ms", "peer", "later ms", "peer"],
        note="First: a new process's first call with its imports. Later: median of "
        f"{args.calls} calls. Goal of the difference: {GOAL:g}.",
    )
    worst = 0.0
    for row, (peer, _ours, _theirs) in ROWS.items():
        if not wanted(row, args.only):
            continue
        say(f"{row} ({peer})")
        ours = ask(sys.executable, row, 0, args.calls)
        theirs = ask(str(PEERS), row, 1, args.calls)
        report.versions[peer] = theirs["version"]
        apart = difference(ours["values"], theirs["values"])
        worst = max(worst, apart)
        times = [
            f"{side[key] * 1000:.{digits}f}"
            for key, digits in (("first_s", 0), ("later_s", 3))
            for side in (ours, theirs)
        ]
        table.rows.append([row.strip(), peer, f"{apart:.1e}", *times])
        report.raw[f"{row.strip()} {peer}"] = {"ours": ours, "theirs": theirs}
    report.tables.append(table)
    report.publish(args)
    return 0 if worst <= GOAL else 1


def main() -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--calls", type=int, default=15, help="later calls per row (default 15)")
    p.add_argument("--only", default="", help="comma-separated parts of rows' names")
    p.add_argument("--json", metavar="FILE", help="write the raw numbers")
    p.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    p.add_argument("--row", help=argparse.SUPPRESS)
    p.add_argument("--side", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.row:
        measure(args.row, args.side, args.calls)
        return 0
    return compare(args)


if __name__ == "__main__":
    raise SystemExit(main())
