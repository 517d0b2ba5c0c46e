"""Cells that campaigns draw from, and the truth by which they are judged: simulated and real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np

import nextpert as npt
from benchmarks._replicated import N_GENES, SHARE, SIZE, N, cells, draw_world
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import distance_difference, mean_distance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks._screens import Screen

    Array = np.ndarray

FIRST, CONTROLS = 10, 100  # cells of each perturbation, and maximum of controls, at the start
WORLDS = ("among", "made by", "unrelated")  # the target and the candidates, in simulations
OF_POOL, OF_CONTROLS = 240, 800  # simulated cells of each perturbation, and of the control
GUIDE_VARIANCE = 0.1  # over a cell's, as on TAP-seq (benchmarks/_replicated.py)
FIRST_GUIDE, LATER_GUIDE = 5, 8  # simulated cells per guide, at the start and afterwards
MIX = (0.7, 0.5)  # of the effects of the two candidates that make a target
MIN_HELD, MIN_ERRORS = 15, 4.0  # held-out cells of a label; standard errors target - control


class Truth(NamedTuple):
    """True distances to the target over the control's, and which differences exceed their error.

    ``gap_low[i, j]`` is the lower end of the 95% interval of the distance of ``i`` minus that of
    ``j``; of simulations, the difference itself. The control is the last.
    """

    relative: Array
    gap_low: Array


class Pool(NamedTuple):
    """The cells that a campaign can observe, and its target."""

    cells: ad.AnnData
    control: str
    guide_key: str | None
    candidates: list[str]
    orders: dict[str, Array]  # rows of each candidate and of the control, in the order of drawing
    given: Array  # rows of the target's cells, which are known from the start
    target: Any  # of tl.plan_screen
    genes: Array  # columns that count
    mean: Array  # of the target, of these genes
    truth: Truth

    def start(self) -> dict[str, int]:
        """Return the number of cells of each label at the start."""
        controls = min(CONTROLS, len(self.orders[self.control]) // 2)
        return dict.fromkeys(self.candidates, FIRST) | {self.control: controls}

    def rows(self, seen: dict[str, int]) -> Array:
        """Return the rows of the cells seen, without those of the target."""
        return np.concatenate([self.orders[name][:n] for name, n in seen.items()])

    def more(self, seen: dict[str, int], plate: dict[str, int]) -> dict[str, int]:
        """Return the cells seen after a round: of an exhausted label, those that remain."""
        return {
            name: min(n + plate.get(name, 0), len(self.orders[name])) for name, n in seen.items()
        }

    def not_exhausted(self, seen: dict[str, int]) -> list[str]:
        """Return the candidates with cells that were not drawn."""
        return [name for name in self.candidates if seen[name] < len(self.orders[name])]


def simulated(world: str, seed: int) -> Pool:
    """Return a simulated pool of 20 candidates whose guides vary, and its target as numbers.

    The target is the state of a candidate ("among"), a sum of parts of the effects of two
    candidates ("made by"), or the state of another perturbation ("unrelated"). Guides are new
    after every few cells.
    """
    drawn = draw_world(seed)
    effects, rng = drawn.effects.to_numpy(), np.random.default_rng([seed, 64])
    strong = np.argsort(-(effects**2).sum(axis=1))[: N // 2]  # others hardly differ from control
    first, second = rng.choice(strong, 2, replace=False)
    other = rng.laplace(scale=SIZE / np.sqrt(2), size=N_GENES) * (rng.random(N_GENES) < SHARE)
    while (other**2).sum() < (effects[strong[-1]] ** 2).sum():
        other = rng.laplace(scale=SIZE / np.sqrt(2), size=N_GENES) * (rng.random(N_GENES) < SHARE)
    target = {
        "among": effects[first],
        "made by": MIX[0] * effects[first] + MIX[1] * effects[second],
        "unrelated": other,
    }[world]
    sizes = np.array([OF_CONTROLS, *[OF_POOL] * N])
    label = np.repeat(np.arange(N + 1), sizes)
    member = np.concatenate([np.arange(size) for size in sizes])
    later = FIRST // FIRST_GUIDE + (member - FIRST) // LATER_GUIDE
    guide = np.where(member < FIRST, member // FIRST_GUIDE, later)
    guide[label == 0] = member[label == 0] % 8
    code = np.unique(label * OF_CONTROLS + guide, return_inverse=True)[1]
    shift = drawn.departures(code.max() + 1, "as measured", GUIDE_VARIANCE)
    means = np.vstack([np.zeros(N_GENES), effects])
    x = 4.0 + means[label] + shift[code] + drawn.noise(len(label))
    names = np.array(["control", *drawn.effects.index])
    adata = cells(x, drawn.effects, perturbation=names[label], guide=code.astype(str))
    distance = ((np.vstack([effects, np.zeros(N_GENES)]) - target) ** 2).sum(axis=1)
    relative = distance / distance[-1]
    orders = {str(name): np.flatnonzero(label == j) for j, name in enumerate(names)}
    mean = 4.0 + target
    state = dict(zip(adata.var_names, mean.tolist(), strict=True))
    return Pool(
        adata, "control", "guide", list(drawn.effects.index), orders, np.zeros(0, int),
        state, np.arange(N_GENES), mean, Truth(relative, relative[:, None] - relative),
    )  # fmt: skip


def real(screen: Screen, seed: int, n_targets: int) -> Iterator[tuple[str, Pool]]:
    """Yield pools of one half of a screen's cells, judged by the other half, and their targets.

    Targets are perturbations that differ from the controls by more than four standard errors, by
    all cells, the strongest first. Neither a target nor a combination that contains it is a
    candidate. Genes that a perturbation of the screen targets do not count.
    """
    rng = np.random.default_rng([seed, 65])
    label, x, control = screen.labels(), np.asarray(screen.cells.X), screen.control
    guides = None
    if screen.guide_key is not None:
        guides = screen.cells.obs[screen.guide_key].astype(str).to_numpy()
    halves = {
        name: np.array_split(rng.permutation(np.flatnonzero(label == name)), 2)
        for name in sorted(set(label))
    }
    halves = {name: half for name, half in halves.items() if len(half[1]) >= MIN_HELD}
    orders = {name: _in_order(half[0], name, control, guides, rng) for name, half in halves.items()}
    counted = np.setdiff1d(np.arange(x.shape[1]), list(screen.targets.values()))
    held = {name: Moments.from_array(x[half[1]][:, counted]) for name, half in halves.items()}
    of_all = {name: Moments.from_array(x[label == name][:, counted]) for name in held}
    apart = {n: mean_distance(of_all[n], of_all[control]) for n in held if n != control}
    clear = [name for name, away in apart.items() if away.estimate > MIN_ERRORS * away.sd]
    clear = sorted(clear, key=lambda name: -apart[name].estimate)[: n_targets or None]
    genes = screen.cells.var_names[counted].tolist()
    for target in clear:
        parts = set(target.split("+"))
        names = [n for n in held if n != control and not parts <= set(n.split("+"))]
        own = {name: orders[name] for name in (*names, control)}
        yield target, Pool(
            screen.cells, control, screen.guide_key, names, own, orders[target],
            npt.Target(state=target, weights=genes), counted,
            x[orders[target]][:, counted].mean(axis=0),
            _judged([held[name] for name in (*names, control)], held[target]),
        )  # fmt: skip


def _in_order(
    rows: Array, name: str, control: str, guides: Array | None, rng: np.random.Generator
) -> Array:
    """Return cells in the order of drawing: of half of the guides first, then of the others.

    The first cells are those at the start; the cells of half of the guides that are not among
    them come after the cells of the other guides, which are new.
    """
    if guides is None or name == control:
        return rows
    names = rng.permutation(np.unique(guides[rows]))
    is_first = np.isin(guides[rows], names[: (len(names) + 1) // 2])
    first = rows[is_first]
    return np.concatenate([first[:FIRST], rows[~is_first], first[FIRST:]])


def _judged(held: list[Moments], target: Moments) -> Truth:
    distance = np.array([mean_distance(each, target).estimate for each in held])
    gap_low = np.array([
        [0.0 if a is b else distance_difference(a, b, target)[1] for b in held] for a in held
    ])  # fmt: skip
    return Truth(distance / distance[-1], gap_low / distance[-1])
