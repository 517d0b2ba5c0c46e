"""What must not matter to the core: order of genes, cells and perturbations, pooling, units.

Hypothesis draws small screens and turns them round. Where something does matter, a test says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextpert.core import (
    Civ,
    Dag,
    DagBlr,
    Greedy,
    LinearScm,
    Moments,
    Pool,
    ScreenMoments,
    boss,
    gsp,
    minimal_imap,
    pool_guides,
)
from nextpert.core.causal.weights import fit_weights
from nextpert.core.design.remaining_variance import RemainingVariance
from nextpert.core.model.effects import exact_effects


@dataclass(frozen=True)
class Screen:
    """Cells with their perturbation (0: control), the graph, and what is expected of shifts."""

    cells: np.ndarray = field(repr=False)
    group: np.ndarray = field(repr=False)
    dag: Dag
    shift: np.ndarray
    target: np.ndarray

    @property
    def n_perturbations(self) -> int:
        return len(self.shift)

    def moments(self, group=0) -> Moments:
        return Moments.from_array(self.cells[self.group == group])

    def screen_moments(self) -> ScreenMoments:
        return ScreenMoments.from_array(self.cells, self.group, self.n_perturbations + 1)

    def posterior(self, **prior) -> DagBlr:
        """The fit to the controls."""
        return DagBlr(self.dag, **prior).update(self.moments())

    def fit(self, **prior):
        """The weights by all cells, shifts free."""
        n = self.n_perturbations + 1
        cells = pool_guides(self.screen_moments(), np.arange(n), n)
        return fit_weights(DagBlr(self.dag, **prior), cells)

    def genes_in_order(self, order) -> Screen:
        """The same screen, gene ``order[i]`` in the place of gene i."""
        place = np.argsort(order)
        edges = [(int(place[k]), int(place[i])) for k, i in self.dag.edges()]
        return replace(
            self,
            cells=self.cells[:, order],
            dag=Dag.from_edges(self.dag.n_nodes, edges),
            shift=self.shift[:, order],
            target=self.target[order],
        )

    def perturbations_in_order(self, order) -> Screen:
        """The same screen, perturbation ``order[j]`` in the place of perturbation j."""
        new = np.concatenate([[0], np.argsort(order) + 1])
        return replace(self, group=new[self.group], shift=self.shift[order])

    def in_units(self, unit) -> Screen:
        """The same screen, every gene in a unit of its own (or all in one)."""
        scaled = {name: getattr(self, name) * unit for name in ("cells", "shift", "target")}
        return replace(self, **scaled)


@st.composite
def screens(draw, min_genes=3, max_genes=6):
    """Draw a screen of a few genes, 60 controls and three perturbations."""
    p = draw(st.integers(min_genes, max_genes))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    lower = np.tril(rng.random((p, p)) < 0.6, -1)
    weights = lower * rng.uniform(0.4, 1.0, (p, p)) * rng.choice([-1, 1], (p, p))
    scm = LinearScm(weights, rng.uniform(0.3, 1.5, p), rng.normal(size=p))
    shift = np.zeros((3, p))
    shift[np.arange(3), rng.permutation(p)[:3]] = rng.normal(0, 2, 3)
    cells = [scm.sample(60, rng=rng)]
    cells += [scm.sample(n, one, rng=rng) for n, one in zip((20, 12, 5), shift, strict=True)]
    group = np.repeat([0, 1, 2, 3], [60, 20, 12, 5])
    return Screen(np.concatenate(cells), group, scm.dag, shift, scm.mean() + rng.normal(size=p))


@st.composite
def screens_and_genes(draw, **sizes):
    """Draw a screen and another order of its genes."""
    screen = draw(screens(**sizes))
    return screen, np.array(draw(st.permutations(range(screen.dag.n_nodes))))


orders_of_perturbations = st.permutations(range(3)).map(np.array)
factors = st.floats(0.01, 100.0)


@st.composite
def screens_and_units(draw, **sizes):
    """Draw a screen and a unit for each of its genes."""
    screen = draw(screens(**sizes))
    p = screen.dag.n_nodes
    return screen, np.array(draw(st.lists(factors, min_size=p, max_size=p)))


def close(one, two, scale=1.0, tolerance=1e-6):
    """Check that two arrays are equal but for rounding."""
    scale = np.broadcast_to(scale, np.shape(two))
    np.testing.assert_allclose(one / scale, two / scale, rtol=tolerance, atol=tolerance)


# -- cells ----------------------------------------------------------------------------------------


@pytest.mark.slow
@given(screens(), st.randoms(use_true_random=False))
def test_cells_may_come_in_any_order_and_in_parts(screen, random):
    order = list(range(len(screen.cells)))
    random.shuffle(order)
    whole = screen.screen_moments()
    turned = replace(screen, cells=screen.cells[order], group=screen.group[order])
    first, second = (
        ScreenMoments.from_array(turned.cells[part], turned.group[part], 4)
        for part in (slice(None, 40), slice(40, None))
    )
    for each in (turned.screen_moments(), first + second):
        assert each.n.tolist() == whole.n.tolist()
        for name in ("mean", "squares", "scatter"):
            close(getattr(each, name), getattr(whole, name))
    close(whole.total().scatter, Moments.from_array(screen.cells).scatter)


@given(screens(), st.integers(2, 4))
def test_guides_that_do_not_differ_are_pooled_cell_by_cell(screen, n_guides):
    guide = n_guides * screen.group + np.arange(len(screen.group)) % n_guides
    guides = ScreenMoments.from_array(screen.cells, guide, 4 * n_guides)
    pooled = pool_guides(guides, np.arange(4 * n_guides) // n_guides, 4)
    plain = pool_guides(screen.screen_moments(), np.arange(4), 4)
    # Not the ratio of variances: it is that within guides.
    for name in ("n_cells", "n", "mean", "scatter"):
        close(getattr(pooled, name), getattr(plain, name))


# -- searches -------------------------------------------------------------------------------------


@given(screens_and_genes())
def test_minimal_imaps_know_no_order_of_genes(drawn):
    screen, order = drawn
    turned = screen.genes_in_order(order)
    found = minimal_imap(screen.moments(), np.arange(len(order)))
    again = minimal_imap(turned.moments(), np.argsort(order))
    assert {(order[k], order[i]) for k, i in again.edges()} == set(found.edges())


@given(screens_and_genes(max_genes=5))
def test_boss_finds_a_graph_as_good_in_any_order_of_genes(drawn):
    # As good, not the same: directions that cells do not settle go by the order of the genes.
    screen, order = drawn
    turned = screen.genes_in_order(order)
    found, again = (boss(each.moments(), n_starts=10, rng=0) for each in (screen, turned))
    close(again.score, found.score, abs(found.score))
    assert again.dag.n_edges == found.dag.n_edges


@given(screens_and_units())
def test_searches_know_no_units(drawn):
    screen, unit = drawn
    turned = screen.in_units(unit)
    for search in (partial(boss, rng=0), partial(gsp, n_runs=5, rng=0)):
        assert search(turned.moments()).dag == search(screen.moments()).dag


# -- posterior ------------------------------------------------------------------------------------


@given(screens_and_genes(), st.sampled_from(["noise", "data", "evidence"]))
def test_the_posterior_knows_no_order_of_genes(drawn, prior_units):
    screen, order = drawn
    here = screen.posterior(prior_units=prior_units)
    there = screen.genes_in_order(order).posterior(prior_units=prior_units)
    close(there.mean().toarray(), here.mean().toarray()[np.ix_(order, order)])
    close(there.noise_var, here.noise_var[order])
    close(there.log_evidence(), here.log_evidence(), abs(here.log_evidence()))


@given(screens_and_units())
def test_a_prior_in_units_of_the_noise_knows_no_units_of_genes(drawn):
    screen, unit = drawn
    here = screen.posterior(prior_units="noise")
    there = screen.in_units(unit).posterior(prior_units="noise")
    close(there.mean().toarray() / unit[:, None] * unit, here.mean().toarray())
    close(there.noise_var, here.noise_var * unit**2, unit**2)
    close(there.intercept_mean / unit, here.intercept_mean)


@given(screens(), st.permutations(range(4)))
def test_environments_may_come_in_any_order_and_pooled(screen, order):
    shifts = np.vstack([np.zeros(screen.dag.n_nodes), screen.shift])
    blr = DagBlr(screen.dag)
    one, two = blr, blr
    for j in range(4):
        one = one.update(screen.moments(j), shifts[j])
    for j in order:
        two = two.update(screen.moments(j), shifts[j])
    parts = blr
    for part in (slice(None, 30), slice(30, None)):
        parts = parts.update(Moments.from_array(screen.cells[screen.group == 0][part]))
    for left, right in ((one, two), (parts, screen.posterior())):
        close(left.mean().toarray(), right.mean().toarray())
        close(left.noise_var, right.noise_var)


# -- weights and effects --------------------------------------------------------------------------


@given(screens_and_genes(), orders_of_perturbations)
def test_weights_know_no_order_of_genes_and_perturbations(drawn, labels):
    screen, order = drawn
    turned = screen.genes_in_order(order).perturbations_in_order(labels)
    here, there = screen.fit(), turned.fit()
    close(there.mean().toarray(), here.mean().toarray()[np.ix_(order, order)])
    close(there.noise_var, here.noise_var[order])
    effects = exact_effects([here], screen.shift, n_samples=1).mean
    again = exact_effects([there], turned.shift, n_samples=1).mean
    close(again, effects[np.ix_(labels, order)])


@given(screens_and_units())
def test_effects_are_in_the_units_of_their_genes(drawn):
    screen, unit = drawn
    turned = screen.in_units(unit)
    here, there = (
        exact_effects([each.fit(prior_units="noise")], each.shift) for each in (screen, turned)
    )
    for name in ("mean", "sd", "lower", "upper", "direct"):
        close(getattr(there, name) / unit, getattr(here, name), tolerance=1e-4)
    close(there.lfsr, here.lfsr, tolerance=1e-4)


# -- acquisition ----------------------------------------------------------------------------------


def acquisitions(screen):
    """Acquisitions of a screen's perturbations, and how they grow with the unit of all genes."""
    blr, pool = screen.fit(prior_units="noise"), Pool(screen.shift)
    return {
        "civ": (Civ(blr, screen.target, domain=pool).values(screen.shift), 4),
        "greedy": (Greedy(blr, screen.target).values(screen.shift), 2),
    }


@given(screens_and_genes(), orders_of_perturbations)
def test_acquisitions_know_no_order_of_genes_and_candidates(drawn, labels):
    screen, order = drawn
    here = acquisitions(screen)
    there = acquisitions(screen.genes_in_order(order).perturbations_in_order(labels))
    for name, (values, _) in here.items():
        close(there[name][0], values[labels], abs(values).max(), 1e-4)


@given(screens(), factors)
def test_acquisitions_grow_with_the_unit_of_all_genes(screen, unit):
    # Distances add up over genes, so units of single genes do matter.
    here, there = acquisitions(screen), acquisitions(screen.in_units(unit))
    for name, (values, power) in here.items():
        close(there[name][0] / unit**power, values, abs(values).max(), 1e-4)


# -- plan -----------------------------------------------------------------------------------------


def plate(draws, weights, noise):
    """The candidates of a plate of three, and the variance that each would take from the rest."""
    left, chosen = RemainingVariance(draws, weights), []
    for _ in range(3):
        gains = left.gains(noise)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        left.observe(chosen[-1], noise[chosen[-1]])
    return np.array(chosen), left.gains(noise)


@given(st.integers(0, 10_000), st.permutations(range(6)).map(np.array), factors)
def test_a_plate_knows_no_order_and_no_unit(seed, labels, unit):
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    weights, noise = rng.random(6), rng.random(6)
    here, after = plate(draws, weights, noise)
    there, turned = plate(unit**2 * draws[:, labels], weights[labels], unit**4 * noise[labels])
    assert labels[there].tolist() == here.tolist()
    close(turned / unit**4, after[labels], after.max())
