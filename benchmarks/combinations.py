"""Plates until the best combination is found: the 131 double perturbations of Norman et al. 2019.

The state of every double in turn is the goal (its mean effect in eight axes, taken as exact), and
the doubles are measured in plates of 8 until the best is found: the goal's own double, or, where
that is held out, the one nearest to it. Either all 105 single perturbations are known before the
first plate, or a random half of them, drawn anew for every goal and repeat. At most 6 plates with
all singles, 8 with half; a double not found by then counts as one plate more.

Methods are those of ``_combination_methods.py``. ``nearest sum`` and ``Thompson on sums`` add
effects up, and learn singles that are not known from the plates, but nothing of interactions.
``BoTorch`` needs an environment with it (``pip install botorch``); its campaigns are written with
``--csv`` there and read with ``--read``. Without a model, a combination never tried is like any
other: Thompson sampling on means of measured combinations alone is ``random``.

    python -m benchmarks.combinations                        # 25 minutes; data: NEXTPERT_DATA
    python -m benchmarks.combinations --methods BoTorch --repeats 1 --csv botorch.csv
    python -m benchmarks.combinations --read botorch.csv --plot benchmarks/results/combinations.png
"""

from __future__ import annotations

import csv
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._combination_methods import METHODS, State
from benchmarks._combinations_plot import Curves, draw
from benchmarks._table import options, save

SETTINGS = {
    # title: share of singles known, goal's own double in the pool, most plates
    "all singles, in the pool": (1.0, True, 6),
    "all singles, held out": (1.0, False, 6),
    "half of the singles, in the pool": (0.5, True, 8),
    "half of the singles, held out": (0.5, False, 8),
}
REGRETS = 3  # plates after which the regret is shown
FILE = "norman2019/norman_mean_geometry.npz"


@dataclass(frozen=True)
class Doubles:
    """Mean effects of single and double perturbations.

    Parameters
    ----------
    alone
        Effects of single perturbations, ``(n_members, n_dims)``.
    pairs, effects
        Members and effects of the doubles, ``(n_pairs, n_dims)``.
    """

    alone: np.ndarray
    pairs: list[tuple[int, ...]]
    effects: np.ndarray


@dataclass(frozen=True)
class Campaign:
    """A goal pursued: plates until its best double, and the regret after each plate."""

    setting: str
    method: str
    goal: int
    repeat: int
    plates: int
    regrets: tuple[float, ...]


def read_doubles(folder: str) -> Doubles:
    """Return the doubles of Norman et al. whose members were measured alone: all of them."""
    with np.load(Path(folder) / FILE, allow_pickle=True) as file:
        means = dict(zip(file["labels"].astype(str), file["means"].astype(float), strict=True))
    singles = sorted(name for name in means if "+" not in name)
    place = {name: i for i, name in enumerate(singles)}
    names = [name for name in means if "+" in name]
    pairs = [tuple(sorted(place[part] for part in name.split("+"))) for name in names]
    return Doubles(
        np.array([means[name] for name in singles]), pairs, np.array([means[n] for n in names])
    )


def campaign(doubles: Doubles, setting: str, method: str, goal: int, repeat: int) -> Campaign:
    """Return how one goal was pursued; the singles known are the same for all methods."""
    share, in_pool, most = SETTINGS[setting]
    shuffled = np.random.default_rng([goal, repeat]).permutation(len(doubles.alone))
    alone = doubles.alone.copy()
    alone[shuffled[round(share * len(alone)) :]] = np.nan
    wanted = doubles.effects[goal]
    square = ((doubles.effects - wanted) ** 2).sum(axis=1)
    may = np.arange(len(square))
    if not in_pool:
        may = np.delete(may, goal)
    best = int(may[square[may].argmin()])
    seen: list[int] = []
    regrets: list[float] = []
    rng = np.random.default_rng([goal, repeat, 1])
    while best not in seen and len(regrets) < most:
        left = np.setdiff1d(may, seen)
        state = State(alone, doubles.pairs, list(seen), doubles.effects[seen], left, wanted)
        seen += METHODS[method](state, rng).tolist()
        regrets.append(float((square[seen].min() - square[best]) / (wanted @ wanted)))
    plates = len(regrets) + (best not in seen)
    regrets += [regrets[-1]] * (most - len(regrets))
    return Campaign(setting, method, goal, repeat, plates, tuple(regrets))


def run(
    doubles: Doubles, settings: list[str], methods: list[str], repeats: int, goals: list[int]
) -> list[Campaign]:
    """Return all campaigns of some methods."""
    out = []
    for setting in settings:
        for method in methods:
            start = time.perf_counter()
            for repeat in range(repeats):
                out += [campaign(doubles, setting, method, goal, repeat) for goal in goals]
            took = time.perf_counter() - start
            print(f"{setting}: {method} {took:.0f} s", file=sys.stderr, flush=True)
    return out


def shares(found: list[Campaign]) -> np.ndarray:
    """Return the share found by each plate, from the first on."""
    plates = np.array([c.plates for c in found])
    return np.array([(plates <= k).mean() for k in range(1, SETTINGS[found[0].setting][2] + 1)])


def curves(settings: list[str], campaigns: list[Campaign]) -> Curves:
    """Return the share found by each plate, by setting and method."""
    out: Curves = {}
    for setting in settings:
        by = {m: [c for c in campaigns if (c.setting, c.method) == (setting, m)] for m in METHODS}
        out[setting] = {method: shares(some) for method, some in by.items() if some}
    return out


def table(setting: str, campaigns: list[Campaign]) -> list[str]:
    """Return the table of a setting; standard errors are over goals."""
    most = SETTINGS[setting][2]
    lines = [
        f"## {setting[0].upper()}{setting[1:]} (at most {most} plates)",
        "",
        "| method | plates | ± | found in plate 1 | by 2 | by 3 | regret after 1 | 2 | 3 | "
        "goals x repeats |",
        "|---" * 10 + "|",
    ]
    for method in METHODS:
        some = [c for c in campaigns if (c.setting, c.method) == (setting, method)]
        if not some:
            continue
        goals = sorted({c.goal for c in some})
        means = [np.mean([c.plates for c in some if c.goal == g]) for g in goals]
        error = np.std(means, ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        regret = np.mean([c.regrets[:REGRETS] for c in some], axis=0)
        cells = [f"{x:.2f}" for x in shares(some)[:REGRETS]] + [f"{x:.3f}" for x in regret]
        lines.append(
            f"| {method} | {np.mean(means):.2f} | {error:.2f} | {' | '.join(cells)} | "
            f"{len(goals)} x {len(some) // len(goals)} |"
        )
    return lines


def write_csv(campaigns: list[Campaign], path: str) -> None:
    """Write campaigns, one a row."""
    with Path(path).open("w", newline="") as file:
        rows = csv.writer(file)
        for c in campaigns:
            rows.writerow([c.setting, c.method, c.goal, c.repeat, c.plates, *c.regrets])


def read_csv(path: str) -> list[Campaign]:
    """Return the campaigns of a file."""
    with Path(path).open(newline="") as file:
        return [
            Campaign(s, m, int(g), int(r), int(n), tuple(map(float, regrets)))
            for s, m, g, r, n, *regrets in csv.reader(file)
        ]


def main(arguments: list[str] | None = None) -> None:
    """Run the campaigns asked for and print their tables."""
    parser = options("combinations", __doc__, data=True)
    without_peer = [name for name in METHODS if name != "BoTorch"]
    parser.add_argument("--methods", nargs="*", default=without_peer, choices=list(METHODS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="only every so many goals")
    parser.add_argument("--csv", metavar="FILE", help="write the campaigns to this file")
    parser.add_argument("--read", nargs="*", default=[], help="join the campaigns of these files")
    parser.add_argument("--plot", metavar="FILE", help="draw the figure to this file")
    args = parser.parse_args(arguments)
    doubles = read_doubles(args.data)
    goals = list(range(0, len(doubles.pairs), args.every))
    campaigns = run(doubles, args.settings, args.methods, args.repeats, goals)
    if args.csv:
        write_csv(campaigns, args.csv)
    for path in args.read:
        campaigns += read_csv(path)
    lines = [line for name in args.settings for line in [*table(name, campaigns), ""]]
    print("\n".join(lines))
    save(lines, args.save)
    if args.plot:
        draw(curves(args.settings, campaigns), args.plot)


if __name__ == "__main__":
    main()
