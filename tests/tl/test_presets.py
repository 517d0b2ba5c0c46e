"""``preset="zhang2023"`` against the formulas of the paper, by dense algebra on centred data."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt


@pytest.fixture(scope="module")
def screen():
    """A screen of 12 genes with their knockouts, and its graph by GSP."""
    adata = npt.datasets.simulated_screen(n_genes=12, n_control=900, n_perturbed=60, rng=0)
    npt.tl.learn_dag(adata, search_options={"n_runs": 20})
    return adata


def designed(adata, target, **options):
    names = list(adata.var_names)
    npt.tl.design_interventions(adata, target, candidates=names, n_samples=20, **options)
    ranking = adata.uns["design"]["ranking"]
    return ranking.loc[ranking["is_control"] == 0, ["perturbation", "acquisition"]]


def by_hand(adata, target):
    """Candidates by CIV: equations 12 and 13 of the paper on a pool, with dense algebra.

    Data are centred on the control mean; noise variances are those of the fit.
    """
    labels, values = adata.obs["perturbation"].to_numpy(), adata.to_df().to_numpy(float)
    control = np.flatnonzero(labels == "control")
    centre = values[control].mean(axis=0)
    parents = adata.varp["dag"].toarray() != 0
    names, p = list(adata.var_names), adata.n_vars
    x = values - centre
    shifts = -np.diag(centre)
    used = np.flatnonzero(np.isin(labels, ["control", *names]))
    shift = np.zeros((len(used), p))
    for row, cell in enumerate(used):
        if labels[cell] in names:
            shift[row] = shifts[names.index(labels[cell])]
    weights, left, q = np.zeros((p, p)), [], []
    noise = npt.core.DagBlr.from_dict(adata.uns["dag_blr"]["posterior"]).noise_var
    wanted = x[labels == target].mean(axis=0)
    for i in range(p):
        a = np.flatnonzero(parents[:, i])
        z, y = x[used][:, a], x[used][:, i] - shift[:, i]
        m = np.linalg.inv(np.eye(len(a)) + z.T @ z)
        weights[i, a] = m @ z.T @ y
        left.append((a, m))
        q.append(wanted[a])
    ideal = wanted - weights @ wanted
    apart = ((shifts - ideal) ** 2).mean(axis=0)  # over the candidates
    found = []
    for j in range(p):
        reached = np.linalg.solve(np.eye(p) - weights, shifts[j])
        total, now = 0.0, 0.0
        for i, (a, m) in enumerate(left):
            ahead = np.linalg.inv(np.linalg.inv(m) + 10 * np.outer(reached[a], reached[a]))
            v = noise[i] * (0.1 + q[i] @ ahead @ q[i])
            before = noise[i] * (0.1 + q[i] @ m @ q[i])
            total += 2 * v**2 + 4 * v * apart[i]
            now += 2 * before**2 + 4 * before * apart[i]
        found.append(now - total)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("number", [0, 1, 4])
def test_the_preset_is_the_paper_by_hand(screen, number):
    target = [x for x in screen.obs["perturbation"].cat.categories if x in screen.var_names][number]
    npt.tl.fit_dag_blr(screen, preset="zhang2023")
    table = designed(screen, target, preset="zhang2023")
    expected = by_hand(screen, target)
    assert set(table["perturbation"]) == set(screen.var_names)
    gains = np.array([expected[name] for name in table["perturbation"]])
    found = table["acquisition"].to_numpy()
    # Values without the noise, which is alike for all candidates, and hundreds of times as large.
    np.testing.assert_allclose(found[-1] - found, gains - gains[-1], atol=1e-4 * np.ptp(gains))
    assert (np.diff(found) >= 0).all()


def test_a_centred_intercept_needs_known_shifts_and_noise(screen):
    for options in ({"shift_sd": 0}, {"shift_sd": "learned"}):
        more = {} if options["shift_sd"] == 0 else {"noise_var": 1.0}
        with pytest.raises(ValueError, match=r"'centred'.*shift_sd=0 and 'noise_var'"):
            npt.tl.fit_dag_blr(screen, prior_options={"intercept": "centred", **more}, **options)
