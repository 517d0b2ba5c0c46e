"""Methods that choose the next round of combinations, given what has been measured so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.model.interactions import canonical, padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from nextpert.core.model.interactions import Interactions, Solved

WELLS = 8
_DRAWS = 1000


@dataclass(frozen=True)
class State:
    """What a method knows."""

    alone: np.ndarray  # effects of single perturbations, NaN where unknown, (n_members, n_dims)
    pairs: list[tuple[int, ...]]  # members of all combinations there are
    seen: list[int]  # numbers of those measured, in order
    effects: np.ndarray  # of those measured
    left: np.ndarray  # numbers of those that may be chosen
    goal: np.ndarray  # the effect to reach

    def square(self, effects: np.ndarray) -> np.ndarray:
        """Return squared distances to the target."""
        return ((effects - self.goal) ** 2).sum(axis=-1)

    def nearest_so_far(self) -> float:
        """Return the squared distance of the best combination measured, or of the control."""
        return float(self.square(np.vstack([0 * self.goal, self.effects])).min())


def learned(state: State) -> Interactions:
    """Return the interactions as learned from the rounds so far."""
    from nextpert.core.model.interactions import learn_interactions

    return learn_interactions(
        state.alone, 0 * state.alone, [state.pairs[k] for k in state.seen], state.effects,
        0 * state.effects,
    )  # fmt: skip


def additive(state: State) -> Interactions:
    """Return plain sums: unknown singles learned from the rounds, and unstructured residuals."""
    found = learned(state)
    sums = replace(found.learned, strengths=np.ones(1), chances=np.ones(1), member_sd=1e-4)
    found = replace(found, learned=sums)
    alone = found.predict([(g,) for g in range(len(state.alone))])[0]
    off = [
        y - alone[list(pair)].sum(axis=0)
        for pair, y in zip(found.measured, state.effects, strict=True)
    ]
    size = np.vstack([np.full((1, len(state.goal)), 0.3), *[row / sums.scale for row in off]])
    return replace(found, learned=replace(sums, rest_sd=float(np.sqrt((size**2).mean()))))


def joint_draws(
    found: Interactions, pairs: list[tuple[int, ...]], n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return joint draws of effects of combinations, ``(n_draws, len(pairs), n_dims)``.

    Combinations with members in common go together, by what is not known of these, and all by the
    strength.
    """
    node = rng.choice(len(found.learned.strengths), size=n_draws, p=found.learned.chances)
    asked = canonical(pairs)
    unique = sorted(set(asked))
    kept, own, variance = found._rests(unique)
    out = np.zeros((n_draws, *kept.shape))
    for k, (_, _, solved) in enumerate(found._solved()):
        some = np.flatnonzero(node == k)
        together = np.swapaxes(_members(solved, len(some), rng), 1, 2)
        filled = np.pad(together, ((0, 0), (0, 1), (0, 0)))
        for column in padded(unique, len(found.alone)).T:
            out[some] += filled[:, column]
    out = kept * out + own + np.sqrt(variance) * rng.normal(size=out.shape)
    return out[:, [unique.index(each) for each in asked]] * found.learned.scale


def _members(solved: Solved, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return draws of what members add to combinations, ``(n, n_dims, n_members)``."""
    used = solved.data.used
    normal = rng.normal(size=(n, *solved.start.shape))
    out = solved.start + solved.spread * normal
    for some, w, covariance, _ in solved.blocks():
        # The upper root, with which the draws of the committed table were made.
        root = np.linalg.cholesky(covariance[:, ::-1, ::-1])[:, ::-1, ::-1]
        drawn = w + np.einsum("dgh,ndh->ndg", root, normal[:, some][:, :, used])
        out[:, some, used] = solved.start[some, used] + drawn
    return out


def random(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose at random."""
    return rng.choice(state.left, min(WELLS, len(state.left)), replace=False)


def nearest_sums(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose those whose sum is nearest."""
    del rng
    return _least(state, state.square(additive(state).predict(state.pairs)[0]))


def thompson_sums(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose by Thompson draws about the sums, with independent departures of combinations."""
    return _thompson(state, joint_draws(additive(state), state.pairs, _DRAWS // 10, rng))


def greedy(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose those whose predicted effect is nearest."""
    del rng
    return _least(state, state.square(learned(state).predict(state.pairs)[0]))


def thompson(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose by Thompson draws: the best of one joint draw per place in the round."""
    return _thompson(state, joint_draws(learned(state), state.pairs, _DRAWS // 10, rng))


def likely_best(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose those that are most often the best of joint draws, ties by mean squared distance."""
    distance = state.square(joint_draws(learned(state), state.pairs, _DRAWS, rng))[:, state.left]
    often = np.bincount(distance.argmin(axis=1), minlength=len(state.left))
    order = np.lexsort((distance.mean(axis=0), -often))
    return state.left[order[:WELLS]]


def improvement(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose by expected improvement on draws."""
    return _improving(state, joint_draws(learned(state), state.pairs, _DRAWS, rng))


def _improving(state: State, draws: np.ndarray) -> np.ndarray:
    """Return greedily what most improves the best of draws, given those already chosen."""
    distance = state.square(draws)[:, state.left]
    best, chosen = np.full(_DRAWS, state.nearest_so_far()), []
    for _ in range(min(WELLS, len(state.left))):
        gain = np.maximum(best[:, None] - distance, 0.0).mean(axis=0)
        order = np.lexsort((distance.mean(axis=0), -gain))
        chosen.append(int(next(k for k in order.tolist() if k not in chosen)))
        best = np.minimum(best, distance[:, chosen[-1]])
    return state.left[chosen]


def _thompson(state: State, draws: np.ndarray) -> np.ndarray:
    chosen: list[int] = []
    for row in state.square(draws)[:, state.left]:
        chosen.append(next(k for k in np.argsort(row).tolist() if k not in chosen))
        if len(chosen) == min(WELLS, len(state.left)):
            break
    return state.left[chosen]


def _least(state: State, distance: np.ndarray) -> np.ndarray:
    return state.left[np.argsort(distance[state.left], kind="stable")[:WELLS]]


def botorch(state: State, rng: np.random.Generator) -> np.ndarray:
    """Choose by expected improvement on draws of BoTorch's Gaussian process.

    The genes are the features, 0 or 1, each axis is an output; the kernel with its priors is the
    library's default, fitted in at most 50 steps to nothing perturbed, the single perturbations
    known and the rounds. It is drawn from jointly, and the round chosen as ours by expected
    improvement, which is quicker than the library's own search over a list.
    """
    import torch
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from gpytorch.mlls import ExactMarginalLogLikelihood

    torch.manual_seed(int(rng.integers(2**31)))
    torch.set_num_threads(1)
    known = np.flatnonzero(~np.isnan(state.alone).any(axis=1))
    n = len(state.alone)
    design = np.zeros((len(state.pairs), n))
    for row, pair in zip(design, state.pairs, strict=True):
        row[list(pair)] = 1.0
    inputs = np.vstack([np.zeros((1, n)), np.eye(n)[known], design[state.seen]])
    outputs = np.vstack([0 * state.goal, state.alone[known], state.effects])
    x, y = torch.from_numpy(inputs), torch.from_numpy(outputs)
    model = SingleTaskGP(x, y, outcome_transform=Standardize(y.shape[1]))
    few = {"options": {"maxiter": 50}}
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs=few)
    with torch.no_grad():
        draws = model.posterior(torch.from_numpy(design)).rsample(torch.Size([_DRAWS]))
    return _improving(state, draws.numpy())


METHODS: dict[str, Callable[[State, np.random.Generator], np.ndarray]] = {
    "random": random,
    "nearest sum": nearest_sums,
    "Thompson on sums": thompson_sums,
    "BoTorch": botorch,
    "ours, nearest": greedy,
    "ours, Thompson": thompson,
    "ours, expected improvement": improvement,
    "ours, likely best": likely_best,
}
