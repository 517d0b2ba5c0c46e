"""Run the core tests within their budget, and sum the seconds of tests by folder.

    python .ci/budget.py run core.xml COMMAND ...   # fails if the tests fail, or take too much
    python .ci/budget.py show core.xml others.xml   # seconds by folder, and the slowest tests

The budget is in seconds of the processor, of all processes of the command, so that other work on
the machine does not count. It is scaled by a fixed loop that is timed before and after the tests: a
machine on which the loop takes twice as long is given twice the seconds. Other work on the machine
shares its caches, which the loop does not see: the set took 432 s of the processor alone and 574 s
beside the lint, types and documentation of .ci/run.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

BUDGET = 700.0  # seconds of the processor for the core set, from an empty cache, beside checks
LOOP = 0.9  # seconds of the loop on the machine that the budget was set on, two quiet cores


def loop() -> float:
    """Return the seconds of the processor that a fixed loop takes: small products, plain Python."""
    x, start = np.random.default_rng(0).normal(size=(60, 60)), time.process_time()
    for _ in range(40_000):
        x = 0.5 * x + 0.01 * (x @ x.T) / (1 + abs(x).sum())
    return time.process_time() - start


def run(durations: str, command: list[str]) -> int:
    """Run the command, which writes the durations, and compare its seconds with the budget."""
    before = loop()
    environment = {**os.environ, "PYTEST_ADDOPTS": f"--junitxml={durations}"}
    code = subprocess.run(command, env=environment, check=False).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = used.ru_utime + used.ru_stime
    allowed = BUDGET * (before + loop()) / 2 / LOOP
    print(f"= {seconds:.0f} s of the processor; the budget on this machine is {allowed:.0f} s")
    if seconds > allowed:
        print("The core set is over its budget: mark what is dear (see CONTRIBUTING.md).")
    return code or int(seconds > allowed)


def show(files: list[str]) -> int:
    """Print the seconds by folder for each set, and the slowest tests."""
    for file in files:
        cases = [
            (float(case.get("time", 0)), case.get("classname", ""), case.get("name", ""))
            for case in ElementTree.parse(file).iter("testcase")
        ]
        seconds, counts = Counter(), Counter()
        for taken, place, _ in cases:
            folder = ".".join(place.split(".")[:2])
            seconds[folder] += taken
            counts[folder] += 1
        print(f"\n{Path(file).stem}: {len(cases)} tests, {sum(seconds.values()):.0f} s")
        for folder, taken in seconds.most_common():
            print(f"  {taken:7.1f} s {counts[folder]:5d}  {folder}")
        for taken, place, name in sorted(cases, reverse=True)[:10]:
            print(f"  {taken:7.1f} s  {place}::{name}"[:110])
    return 0


if __name__ == "__main__":
    what, first, *rest = sys.argv[1:]
    sys.exit(run(first, rest) if what == "run" else show([first, *rest]))
