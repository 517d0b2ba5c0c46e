"""Batches taken off means and scatters, by every call, against the same screen without them."""

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import read_batches, read_groupings, read_roles
from nextpert.core import Moments
from nextpert.core.screen.guides import pool_guides
from nextpert.tl._cells import fit_environments, read_cells
from tests._screens import with_fit, with_graph


@pytest.fixture
def pair():
    """A screen, and the same with five plates of sd 1 crossed with two donors and guides."""
    clean = npt.datasets.simulated_screen(
        n_genes=8, n_control=1500, n_perturbed=200, perturbed=5, expected_degree=3, rng=0
    )
    rng = np.random.default_rng(1)
    mixed = clean.copy()
    plate, donor = rng.integers(0, 5, mixed.n_obs), rng.integers(0, 2, mixed.n_obs)
    mixed.obs["plate"], mixed.obs["donor"] = pd.Categorical(plate.astype(str)), donor
    mixed.obs["guide"] = mixed.obs["perturbation"].astype(str) + rng.choice(list("ab"), len(plate))
    added = rng.normal(size=(5, 8))[plate] + rng.normal(size=(2, 8))[donor]
    mixed.X = mixed.X + added - added.mean(axis=0)  # a knockout goes to the same zero
    npt.pp.setup_screen(mixed, guide_key="guide", batch_key=["plate", "donor"])
    return clean, mixed


def test_moments_are_those_of_cells_corrected_by_hand(pair):
    _, mixed = pair
    roles = read_roles(mixed)
    labels, code = np.unique(mixed.obs["perturbation"], return_inverse=True)
    plate = pd.get_dummies(mixed.obs["plate"]).to_numpy(float)[:, 1:]
    donor = (mixed.obs["donor"] == 1).to_numpy(float)[:, None]
    fixed = np.hstack([plate, donor])
    design = np.hstack([np.eye(len(labels))[code], fixed])
    effect = np.linalg.lstsq(design, mixed.X, rcond=None)[0][len(labels) :]
    by_hand = mixed.X - (fixed - fixed.mean(axis=0)) @ effect
    (found,), _ = read_groupings(mixed, np.arange(8), [(code, len(labels))], roles)
    for k, moments in enumerate(found):
        wanted = Moments.from_array(by_hand[code == k])
        assert moments.n == wanted.n
        np.testing.assert_allclose(moments.mean, wanted.mean, atol=1e-8)
        np.testing.assert_allclose(moments.scatter, wanted.scatter, rtol=1e-6, atol=1e-6)


def test_conditions_and_covariates_stay_in_the_means(pair):
    """A drug that two plates got more of: what it adds is not what the plates add."""
    _, mixed = pair
    rng = np.random.default_rng(3)
    drug = rng.random(mixed.n_obs) < np.where(mixed.obs["plate"].isin(["0", "1"]), 0.8, 0.2)
    mixed.X = mixed.X + 2.0 * drug[:, None]
    mixed.obs["drug"], mixed.obs["depth"] = np.where(drug, "yes", "no"), rng.normal(size=len(drug))
    npt.pp.setup_screen(mixed, batch_key=["plate", "donor"], covariates=["drug", "depth"])
    batches = read_batches(mixed, np.arange(8), read_roles(mixed))
    label = mixed.obs["perturbation"].astype(str) + mixed.obs["drug"]
    columns = pd.get_dummies(mixed.obs["plate"]).to_numpy(float)[:, 1:]
    fixed = np.column_stack([columns, mixed.obs["donor"]])
    design = np.hstack([pd.get_dummies(label).to_numpy(float), fixed])
    effect = np.linalg.lstsq(design, mixed.X, rcond=None)[0][-fixed.shape[1] :]
    by_hand = (fixed - fixed.mean(axis=0)) @ effect
    np.testing.assert_allclose(batches.of_cells(np.arange(mixed.n_obs)), by_hand, atol=1e-8)


@pytest.mark.slow
def test_results_are_those_without_batches(pair):
    clean, mixed = pair
    ignored = mixed.copy()
    npt.pp.setup_screen(ignored, guide_key=None, batch_key=None)
    for adata in (clean, mixed, ignored):
        npt.tl.learn_dag(adata, method="boss", environments="all")
        npt.tl.fit_dag_blr(adata)
    assert (clean.varp["dag"] != mixed.varp["dag"]).nnz == 0
    weights = [a.varp["dag_blr_mean"].toarray() for a in (clean, mixed, ignored)]
    assert np.abs(weights[0] - weights[1]).max() < 0.05
    assert np.abs(weights[0] - weights[2]).max() > 0.1
    target = str(clean.uns["dag_blr"]["environments"]["perturbation"].iloc[0])
    for adata in (clean, mixed):
        npt.tl.target_distances(adata, target)
        npt.tl.dag_fit(adata)
        npt.tl.cpca(adata)
    tables = [a.uns["target_distances"]["table"].set_index("perturbation") for a in (clean, mixed)]
    change = (tables[0]["distance"] - tables[1]["distance"]).abs()
    assert (change < 4 * tables[0]["sd"]).all()
    scores = [a.obsm["X_cpca"][:, 0] for a in (clean, mixed)]
    assert abs(np.corrcoef(*scores)[0, 1]) > 0.9
    fits = [a.uns["dag_fit"]["mean_r"] for a in (clean, mixed)]
    assert fits[0] == pytest.approx(fits[1], abs=0.02)


def test_cells_without_a_batch_and_batches_without_labels_are_refused(pair):
    _, mixed = pair
    roles = read_roles(mixed)
    lost = mixed.copy()
    lost.obs.loc[lost.obs_names[:3], "plate"] = np.nan
    with pytest.raises(ValueError, match=r"plate.* is missing for 3 labelled cells"):
        npt.tl.fit_dag_blr(npt_graph(lost))
    lost.obs["perturbation"] = lost.obs["perturbation"].astype(object)
    lost.obs.loc[lost.obs_names[:3], "perturbation"] = np.nan
    batches = read_batches(lost, np.arange(8), roles)
    with pytest.raises(ValueError, match="3 of the cells in use have no batch"):
        batches.of_cells(np.arange(5))
    other = mixed.copy()
    other.obs["plate"] = other.obs["plate"].astype(str)
    other.obs.loc[other.obs_names[:3], "plate"] = "new"
    other.obs["perturbation"] = other.obs["perturbation"].astype(object)
    other.obs.loc[other.obs_names[:3], "perturbation"] = np.nan
    with pytest.raises(ValueError, match="Batches without labelled cells: new"):
        read_batches(other, np.arange(8), roles).of_cells(np.arange(5))


def npt_graph(adata):
    return with_graph(adata, [(adata.var_names[0], adata.var_names[1])], genes=None)


@pytest.mark.parametrize("batches", [False, True])
def test_cells_of_a_fit_add_up_to_those_of_the_groups(pair, batches):
    clean, mixed = pair
    adata = mixed if batches else clean
    roles = read_roles(adata)
    labels, code = np.unique(adata.obs["perturbation"].astype(str), return_inverse=True)
    names = [name for name in labels if name != "control"]
    groups = ["control", *names[1:]]  # cells of names[0] tell what batches add, no more
    code = np.array([groups.index(name) if name in groups else -1 for name in labels])[code]
    environments = fit_environments(adata, roles, names[1:])
    cells = read_cells(adata, np.arange(8), environments, names[1:])
    known, screen = cells.fits[0]
    moments, keys, sd = known.without_batches(screen, names[1:])
    pooled = pool_guides(moments, keys[:, 0], len(groups), fixed_sd=sd)
    (apart,), added = read_groupings(adata, np.arange(8), [(code, len(groups))], roles)
    if batches:
        columns = added.columns[added.codes]
        errors = added.errors(code, len(groups))
        for k in range(len(groups)):
            mean = columns[code == k].mean(axis=0)
            np.testing.assert_allclose(pooled.fixed[k], mean, atol=1e-10)
            np.testing.assert_allclose(errors[k], mean * added.sd, atol=1e-12)
    assert pooled.n.tolist() == [m.n for m in apart]
    for k, other in enumerate(apart):
        np.testing.assert_allclose(pooled.mean[k], other.mean, atol=1e-10)
    together = sum(m.scatter for m in apart)
    np.testing.assert_allclose(pooled.scatter, together, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("batches", [False, True])
def test_cells_without_some_perturbations_are_those_of_the_other_cells(pair, batches):
    """No cell that is left out tells of batches, guides or anything else."""
    clean, mixed = pair
    adata = mixed if batches else clean
    roles, columns = read_roles(adata), np.arange(8)
    names = sorted(set(adata.obs["perturbation"]) - {"control"})
    gone, kept = names[:2], names[2:]
    cells = read_cells(
        adata, columns, fit_environments(adata, roles, names), names, without=[[], gone]
    )
    others = adata[~adata.obs["perturbation"].isin(gone)].copy()
    alone = read_cells(others, columns, fit_environments(others, roles, kept), kept)
    one = cells.fit_cells(kept, 1, guided=batches)
    two = alone.fit_cells(kept, guided=batches)
    assert one.guide_variance == two.guide_variance
    for name in ("n_cells", "n", "mean", "scatter", "variance_ratio", "fixed", "fixed_scatter"):
        np.testing.assert_array_equal(getattr(one.pooled, name), getattr(two.pooled, name))
    with pytest.raises(ValueError, match="of a fold cannot be separated"):
        cells.fit_cells(names[1:], guided=batches)


@pytest.mark.parametrize(
    ("perturbations", "plates", "confounded"),
    [
        ("control", "0", []),  # controls on one plate; perturbations on all, which connect plates
        ("control", "own", "all"),  # controls on a plate of their own
        ("some", "own", "some"),  # one perturbation alone on its plate
        ("two", "own", "two"),  # two that share a plate without controls
    ],
)
def test_perturbations_in_batches_without_controls_are_named(
    pair, recwarn, perturbations, plates, confounded
):
    """Of 12 effects of such a perturbation 4 to 6 were significant and false, without a word."""
    _, mixed = pair
    label = mixed.obs["perturbation"].astype(str)
    names = sorted(set(label) - {"control"})
    sets = {"control": ["control"], "some": names[:1], "two": names[:2], "all": names}
    mine = label.isin(sets[perturbations]).to_numpy()
    mixed.obs["plate"] = np.where(mine, plates, mixed.obs["plate"].astype(str))
    with_fit(mixed, np.zeros((8, 8)), genes=None)
    said = [str(w.message) for w in recwarn if "Batches without control cells" in str(w.message)]
    wanted = sets[confounded] if confounded else []
    assert len(said) == bool(wanted)
    for name in names:
        assert (name in " ".join(said)) == (name in wanted)
