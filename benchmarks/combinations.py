"""Rounds until the best combination is found: the 131 double perturbations of Norman et al. 2019.

The state of every double in turn is the target (its mean effect in eight axes, taken as exact), and
the doubles are measured in rounds of 8 until the best is found: the double that defines the target
or, if this is held out, the nearest other double. Before the first round, either all 105 single
perturbations are known, or a random half of them, drawn again for every target and repeat. There
are at most 6 rounds with all singles and 8 with half; a double that is not found by then counts as
one round more. The last column has the difference in rounds from "ours, likely best" on the same
targets.

Methods are those of ``_combination_methods.py``. ``nearest sum`` and ``Thompson on sums`` add
effects, and learn unknown singles from the rounds, but no interactions. ``BoTorch`` has to be
installed (``pip install botorch``). Without a model, all untested combinations are equivalent, so
Thompson sampling on the means of measured combinations is the same as ``random``.

    python -m benchmarks.combinations                        # 25 minutes; data: NEXTPERT_DATA
    python -m benchmarks.combinations --methods BoTorch "ours, likely best" --every 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._combination_methods import METHODS, State
from benchmarks._page import options, save, show, table, with_error

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    # title: share of singles known, goal's own double a candidate, most rounds
    "all singles, target a candidate": (1.0, True, 6),
    "all singles, held out": (1.0, False, 6),
    "half of the singles, target a candidate": (0.5, True, 8),
    "half of the singles, held out": (0.5, False, 8),
}
REGRETS = 3  # rounds after which the regret is shown
OURS = "ours, likely best"
FILE = "norman2019/norman_mean_geometry.npz"


@dataclass(frozen=True)
class Doubles:
    """Mean effects of single and double perturbations."""

    alone: np.ndarray  # of single perturbations, (n_members, n_dims)
    pairs: list[tuple[int, ...]]  # members of the doubles
    effects: np.ndarray  # of the doubles, (n_pairs, n_dims)


@dataclass(frozen=True)
class Campaign:
    """The campaign of a target: rounds until its best double, and the regret after each round."""

    plates: int
    regrets: list[float]


def read_doubles(folder: Path) -> Doubles:
    """Return the doubles of Norman et al. whose members were measured alone: all of them."""
    with np.load(folder / FILE, allow_pickle=True) as file:
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
    return Campaign(plates, regrets)


def section(
    doubles: Doubles, setting: str, methods: list[str], repeats: int, goals: list[int]
) -> str:
    """Return the table of a setting; standard errors are over targets."""
    found = {
        method: [
            [campaign(doubles, setting, method, goal, repeat) for repeat in range(repeats)]
            for goal in goals
        ]
        for method in methods
    }
    plates = {
        method: np.array([[c.plates for c in each] for each in every])
        for method, every in found.items()
    }
    rows = {}
    for method, every in found.items():
        by_goal = plates[method].mean(axis=1)
        regret = np.mean([c.regrets[:REGRETS] for each in every for c in each], axis=0)
        more = by_goal - plates[OURS].mean(axis=1) if OURS in plates else by_goal * np.nan
        rows[method] = [
            *with_error(by_goal).split(" ± "),
            *(f"{(plates[method] <= k).mean():.2f}" for k in range(1, REGRETS + 1)),
            *(f"{value:.3f}" for value in regret), f"{len(goals)} x {repeats}", with_error(more),
        ]  # fmt: skip
    head = (
        "method", "rounds", "±", "found in round 1", "by 2", "by 3", "regret after 1", "2", "3",
        "targets x repeats", "more than ours",
    )  # fmt: skip
    title = f"## {setting[0].upper()}{setting[1:]} (at most {SETTINGS[setting][2]} rounds)"
    return f"{title}\n\n{table(head, rows)}"


def main(arguments: list[str] | None = None) -> None:
    """Run the campaigns asked for and print their tables."""
    parser = options("combinations", __doc__, data=True)
    without_peer = [name for name in METHODS if name != "BoTorch"]
    parser.add_argument("--methods", nargs="*", default=without_peer, choices=list(METHODS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="only every n-th target")
    args = parser.parse_args(arguments)
    doubles = read_doubles(args.data)
    goals = list(range(0, len(doubles.pairs), args.every))
    sections = [
        show(section(doubles, setting, args.methods, args.repeats, goals))
        for setting in args.settings
    ]
    save("combinations", sections, args.save)


if __name__ == "__main__":
    main()
