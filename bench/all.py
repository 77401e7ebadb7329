"""Runs every benchmark one after another and prints the tables for docs/reference/benchmarks.md.

    python bench/all.py            a quick pass, about nine minutes
    python bench/all.py --full     the default rounds, about an hour
    python bench/all.py --skip gap,many

The raw numbers of the comparisons with the peers go to bench/results/latest.json; logs.py and
probes.py measure everup alone and are printed as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import HERE, Table, machine, say

COMPARISONS = ("respawn", "gap", "deploy", "takeover", "many", "status")
ALONE = ("logs", "probes", "tolerate", "report", "structures", "reliability")
LIMIT_S = {
    "respawn": 700,
    "gap": 1500,
    "deploy": 3000,
    "many": 1500,
    "status": 500,
    "takeover": 600,
    "logs": 300,
    "probes": 300,
    "tolerate": 600,
    "report": 300,
    "structures": 200,
    "reliability": 300,
}


def run(name: str, *words: str) -> str | None:
    """Output of one program; None if it failed. SIGTERM first, so that it ends what it started."""
    say(f"{name} {' '.join(words)}")
    process = subprocess.Popen(
        [sys.executable, str(HERE / f"{name}.py"), *words], stdout=subprocess.PIPE, text=True
    )
    try:
        text, _ = process.communicate(timeout=LIMIT_S[name])
    except BaseException as error:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        say(f"{name}: not within {LIMIT_S[name]} s")
        return None
    if process.returncode:
        say(f"{name}: ended with {process.returncode}")
        return None
    return text


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--full", action="store_true", help="the default rounds instead of --quick")
    p.add_argument("--skip", default="", help="comma-separated names of programs to leave out")
    p.add_argument("--json", default=str(HERE / "results" / "latest.json"), metavar="FILE")
    args = p.parse_args()
    skipped = set(args.skip.split(","))
    results: dict[str, Any] = {"machine": machine(), "programs": {}}
    failed = []
    with tempfile.TemporaryDirectory(prefix="everup-bench-") as scratch:
        for name in COMPARISONS:
            if name in skipped:
                continue
            file = Path(scratch) / f"{name}.json"
            if run(name, "--json", str(file), *([] if args.full else ["--quick"])) is None:
                failed.append(name)
                continue
            results["programs"][name] = data = json.loads(file.read_text())
            print(f"\n### {name}\n")
            for table in data["tables"]:
                print(Table(**table).markdown(), end="\n\n", flush=True)
    for name in ALONE:
        if name in skipped or not (HERE / f"{name}.py").exists():
            continue
        text = run(name)
        if text is None:
            failed.append(name)
        else:
            print(f"\n### {name}\n\n```text\n{text.rstrip()}\n```\n", flush=True)
    results["failed"] = failed
    target = Path(args.json)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")
    say(f"raw numbers: {target.name}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
