"""Design steps and pools: nextpert compared with the plain dense program."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._dense_civ import DenseCiv, DensePosterior
from benchmarks._row import Timed, Work
from nextpert.core import (
    Civ,
    Dag,
    DagBlr,
    LinearScm,
    Moments,
    Optimum,
    Pool,
    Sphere,
    design_loop,
    random_scm,
)  # fmt: skip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """A campaign after its first rounds: posterior, target, the last shift and its cell."""

    scm: LinearScm
    posterior: DagBlr
    target: Array
    last: Array
    cell: Array

    def dense(self) -> DensePosterior:
        """Return the same posterior as padded dense arrays."""
        blr, p = self.posterior, self.posterior.n_nodes
        parents = [blr.dag.parents(i) for i in range(p)]
        dense = DensePosterior.prior(parents, self.scm.noise_var)
        dense.mean = blr.mean().toarray()
        for i, own in enumerate(parents):
            block = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(len(own), len(own))
            dense.cov[i][np.ix_(own, own)] = block
            dense.precision[i] = np.linalg.inv(block)
        return dense


def draw_state(n_genes: int, n_parents: int | None, seed: int, n_rounds: int = 1) -> State:
    """Draw a model of the paper's kind and run the first rounds.

    Every gene has ``n_parents`` parents among those before it (``None``: all of them), weights and
    noise as in Zhang et al. 2023; the target is reached by a shift of the 10 last genes.
    """
    rng = np.random.default_rng(seed)
    graph: Dag | str = "complete"
    if n_parents is not None:
        graph = Dag.from_parents(
            [rng.choice(i, min(i, n_parents), replace=False) if i else [] for i in range(n_genes)]
        )
    scm = random_scm(n_genes, graph, rng=rng)
    ideal = np.zeros(n_genes)
    ideal[-10:] = rng.uniform(0.25, 1, len(ideal[-10:])) * rng.choice([-1, 1], len(ideal[-10:]))
    target = scm.mean(ideal / np.linalg.norm(ideal))
    prior = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    done = design_loop(scm, prior, target, n_rounds=n_rounds, rng=rng)
    last = done.shifts[-1]
    _ = done.posterior.blocks  # a step starts from a posterior at hand
    return State(scm, done.posterior, target, last, scm.sample(1, last, rng=rng))


def take_step(state: State) -> Timed:
    """Update with the last cell, then search from the last shift and the current estimate.

    As in a campaign, the posterior is updated in place; the copy that saves the state is not
    part of the time.
    """
    posterior = copy.deepcopy(state.posterior)
    start = time.perf_counter()
    posterior.update(Moments.from_array(state.cell), state.last, inplace=True)
    civ = Civ(posterior, state.target)
    found = Sphere(1.0).minimise(civ, starts=[state.last], n_random=0)
    return Timed(time.perf_counter() - start, (found, civ))


def take_dense_step(state: State, dense: DensePosterior, *, lean: bool) -> tuple[Array, int]:
    """Do the same with the dense program; return the shift and the number of evaluations."""
    acquisition = DenseCiv(dense.update(state.cell, state.last), state.target, lean=lean)
    shift, _ = acquisition.minimise(state.last)
    return shift, acquisition.evaluations


def _lean_step(state: State) -> float:
    dense = state.dense()
    start = time.perf_counter()
    take_dense_step(state, dense, lean=True)
    return time.perf_counter() - start


def civ_step(*, n_genes: int, n_parents: int | None, n_states: int, peer: bool = True) -> Work:
    """One step of a campaign: the posterior update and a search from two starts."""
    state = cache(lambda k: draw_state(n_genes, n_parents, k % n_states))
    dense = cache(lambda k: state(k).dense())
    for k in range(n_states):
        state(k)

    def ours(k: int) -> Timed:
        return take_step(state(k % n_states))

    def theirs(k: int) -> tuple[Array, int]:
        k %= n_states
        return take_dense_step(state(k), dense(k), lean=False)

    def once() -> float:
        after = dense(0).update(state(0).cell, state(0).last)
        return DenseCiv(after, state(0).target).value(state(0).last)

    def report(found: list[tuple[Optimum, Civ]], peers: list[tuple]) -> tuple[str, bool]:
        if not peers:
            return "", True
        excess = [
            civ.excess(np.stack([optimum.shift, peer[0]]))
            for (optimum, civ), peer in zip(found, peers, strict=False)
        ]
        mine, other = excess[0]
        lean = median(_lean_step(state(k)) for k in range(min(n_states, len(peers))))
        remark = f"CIV above its floor: ours {mine:.4g}, peer {other:.4g}; "
        remark += f"peer keeping q'Mq too: {lean * 1e3:.3g} ms"
        return remark, all(mine <= other * (1 + 1e-9) for mine, other in excess)

    return Work(
        ours,
        theirs if peer else None,
        report,
        setup_peer=lambda: [dense(k) for k in range(n_states)],
        peer_once=once if n_genes > 50 else None,
    )


def pool(
    *, n_genes: int, n_parents: int, n_candidates: int, n_peer: int, peer: bool = True
) -> Work:
    """Rank a pool: nextpert in one go; the dense program by candidate, ``n_peer`` of them."""
    state = draw_state(n_genes, n_parents, 0)
    shifts = Sphere(1.0).sample(n_candidates, n_genes, 1)
    some = min(n_peer, n_candidates)
    dense = cache(state.dense)

    def ours(_: int) -> tuple[Civ, Optimum]:
        domain = Pool(shifts)
        civ = Civ(state.posterior, state.target, domain=domain)
        return civ, domain.minimise(civ)

    def theirs(_: int) -> Timed:
        start = time.perf_counter()
        area = shifts.mean(axis=0), shifts.var(axis=0)
        acquisition = DenseCiv(dense(), state.target, area=area)
        fixed = time.perf_counter()
        values = np.array([acquisition.value(shift) for shift in shifts[:some]])
        loop = time.perf_counter() - fixed
        return Timed(fixed - start + loop * n_candidates / some, values)

    def report(found: list[tuple[Civ, Optimum]], peers: list[Array]) -> tuple[str, bool]:
        if not peers:
            return "", True
        values = found[0][0].values(shifts[:some])
        worst = float(np.abs(values / peers[0] - 1).max())
        remark = f"values agree to {worst:.0e}; "
        if some < n_candidates:
            remark += f"peer: {some:,} candidates, scaled up; "
        lean = DenseCiv(dense(), state.target, lean=True)
        start = time.perf_counter()
        for shift in shifts[:some]:
            lean.value(shift)
        seconds = (time.perf_counter() - start) * n_candidates / some
        return f"{remark}peer keeping q'Mq too: {seconds:.3g} s", worst < 1e-10

    return Work(ours, theirs if peer else None, report, setup_peer=dense)
