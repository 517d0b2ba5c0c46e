"""What `nextpert` can do, one test each, by public functions alone."""

from itertools import pairwise, product

import numpy as np
import pytest

import nextpert as npt
from nextpert import core
from tests._screens import new_copies, screen_of, true_graph, with_fit

pytestmark = pytest.mark.brief_chain


@new_copies
def fitted():
    """A fit of five knockouts, three pairs and a combination of three, whose effects add up."""
    base = npt.datasets.simulated_screen(
        n_genes=8, n_control=400, n_perturbed=1, perturbed=0, expected_degree=2, rng=1
    )
    truth, rng = base.uns["truth"], np.random.default_rng(2)
    scm = core.LinearScm(truth["weights"].toarray(), truth["noise_var"], truth["intercept"])
    genes = [str(gene) for gene in base.var_names]
    labels = [*genes[:5], *(f"{a}+{b}" for a, b in pairwise(genes[:4]))]
    labels.append("+".join(genes[:3]))
    cells, names = [base.X], ["control"] * base.n_obs
    for label in labels:
        shift = np.array([-truth["control_mean"][k] * (g in label.split("+"))
                          for k, g in enumerate(genes)])  # fmt: skip
        cells.append(scm.sample(60, shift, rng=rng).astype(np.float32))
        names += [label] * 60
    adata = screen_of(np.concatenate(cells), names, genes)
    adata.uns["truth"] = truth
    return with_fit(adata, true_graph(adata))


def state(adata, label):
    """Return the true mean under knockouts of the members of a label, gene by gene."""
    truth = adata.uns["truth"]
    mean, genes = truth["control_mean"], [str(gene) for gene in truth["genes"]]
    shift = np.array([-mean[k] * (gene in label.split("+")) for k, gene in enumerate(genes)])
    change = np.linalg.solve(np.eye(len(genes)) - truth["weights"].toarray(), shift)
    return dict(zip(genes, (mean + change).tolist(), strict=True))


DOMAINS = {
    "sphere": core.Sphere(1.0),
    "pool": core.Pool(core.Sphere(1.0).sample(20, 6, rng=4)),
    "box": core.Box(-1.0, 0.5),
    "sparse": core.Sparse(2),
}
ACQUISITIONS = (
    "random", "greedy", "maxv", "cv", "civ", "civ_ow", "target_mean_variance", "ei", "mi", "ucb",
)  # fmt: skip


# CIV-OW has output weights on spheres and pools alone.
PAIRS = {*product(DOMAINS, ACQUISITIONS)} - {*product(["box", "sparse"], ["civ_ow"])}


@pytest.mark.parametrize(("domain", "name"), sorted(PAIRS))
def test_domains_and_acquisitions_of_the_paper(domain, name):
    scm = core.random_scm(6, "complete", rng=0)
    blr = core.DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    blr = blr.update(core.Moments.from_array(scm.sample(5, rng=1)))
    _, target = core.random_target(scm, 2, rng=2)
    where = DOMAINS[domain]
    built = core.build_acquisition(name, blr, target, domain=where, n_cells=5, best=1.0, rng=3)
    best = where.minimise(built, n_random=4, rng=4)
    np.testing.assert_allclose(where.project(best.shift), best.shift, atol=1e-6)
    if name != "random":
        drawn = built.values(where.sample(50, 6, rng=5))
        assert best.value <= drawn.min() + 1e-9 * np.abs(drawn).max()
    found = core.design_loop(scm, blr, target, name, domain=where, n_rounds=3, rng=6)
    assert np.isfinite(found.distance).all()
    for shift in found.shifts:
        np.testing.assert_allclose(where.project(shift), shift, atol=1e-6)


def test_combinations_of_three(fitted):
    a, b, c, d = (str(gene) for gene in fitted.var_names[:4])
    unseen = f"{a}+{c}+{d}"
    npt.tl.perturbation_effects(fitted, candidates=[f"{a}+{b}+{c}", unseen])
    found = fitted.uns["perturbation_effects"]
    assert found["n_cells"].tolist() == [60, 0]
    control = fitted.uns["truth"]["control_mean"]
    wanted = np.array(list(state(fitted, unseen).values())) - control
    assert ((found["mean"][1] - wanted) ** 2).sum() < 0.1 * (wanted**2).sum()
    npt.tl.plan_screen(
        fitted,
        state(fitted, unseen),
        n_perturbations=3,
        n_cells=300,
        candidates=[a, b, c, d, unseen],
    )
    assert unseen in set(fitted.uns["plan"]["plate"]["perturbation"])
