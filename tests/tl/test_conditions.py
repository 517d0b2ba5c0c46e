"""Conditions on an AnnData: roles, effects by condition, what the diagnosis says of them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from, read_roles
from nextpert.core.model.conditions import fit_each
from nextpert.core.model.sampler import Chain
from nextpert.core.screen.guides import pool_guides
from nextpert.core.screen.screen import ScreenMoments
from tests._screens import new_copies, with_fit

LINES, GENES = ["A", "B"], 8
NAMES = ["P1", "P2", "P3", "P4", "P5"]


def lined(*, seed=0, other=None, cells=40, plates=False):
    """Return two lines: P1 acts in line A alone, P2 and P3 in both; ``other`` is B's effects."""
    rng = np.random.default_rng(seed)
    effect = np.zeros((2, 1 + len(NAMES), GENES))
    effect[0, 1, :4] = 1.0
    effect[:, 2, 2:5] = -1.0
    effect[:, 3, 5:] = 0.8
    if other is not None:
        effect[1] = other * effect[1]
        effect[1, 1, 4:] = 1.0 - other
    label = np.repeat(np.arange(1 + len(NAMES)), [300] + [cells] * len(NAMES))
    line = np.repeat([0, 1], len(label))
    label = np.tile(label, 2)
    x = 5.0 + effect[line, label] + rng.normal(size=(len(line), GENES)) + 2.0 * line[:, None]
    obs = pd.DataFrame(
        {"perturbation": np.array(["control", *NAMES])[label], "line": np.array(LINES)[line]},
        index=[f"c{i}" for i in range(len(line))],
    )
    if plates:  # two in each line
        plate = rng.integers(2, size=len(line))
        x += plate[:, None] * np.where(line == 0, 1.0, -1.5)[:, None]
        obs["plate"] = [f"{a}{b}" for a, b in zip(obs["line"], plate, strict=True)]
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(GENES)])), effect


def fit(adata, **roles):
    npt.pp.setup_screen(adata, **roles)
    return with_fit(adata)


def effects(adata, condition):
    return npt.tl.perturbation_effects(adata, condition=condition, as_anndata=True)


@new_copies
def fitted():
    return fit(lined()[0], condition_key="line")


def test_a_condition_is_a_batch_as_well(fitted):
    roles = read_roles(fitted)
    assert (roles.condition_key, roles.batch_key) == ("line", ("line",))
    assert roles.columns == ["perturbation", "line"]
    npt.pp.setup_screen(fitted, batch_key="line")  # said twice, and kept
    assert read_roles(fitted) == roles
    npt.pp.setup_screen(fitted, condition_key=None)
    assert (read_roles(fitted).condition_key, read_roles(fitted).batch_key) == (None, ("line",))
    assert fitted.uns["dag_blr"]["params"]["condition_key"] == "line"


def test_effects_in_one_line_are_found_there_and_not_in_the_other(fitted):
    truth = lined()[1]
    found = [effects(fitted, line) for line in LINES]
    for one, line, wanted in zip(found, LINES, truth, strict=True):
        assert one.obs_names.tolist() == NAMES
        assert (one.obs["condition"] == line).all()
        assert (one.obs["n_cells"] == 40).all()
        inside = (one.layers["lower"] <= wanted[1:]) & (wanted[1:] <= one.layers["upper"])
        assert inside.mean() > 0.8
    significant = [one.layers["lfsr"] < 0.05 for one in found]
    assert significant[0][0, :4].all()
    assert not significant[1][0].any()
    assert significant[0][1, 2:5].all()
    assert significant[1][1, 2:5].all()
    x, obs = fitted.X, fitted.obs
    in_b = obs["line"] == "B"
    mean = x[in_b & (obs["perturbation"] == "P3")].mean(axis=0)
    plain = mean - x[in_b & (obs["perturbation"] == "control")].mean(axis=0)
    np.testing.assert_allclose(found[1]["P3"].layers["raw_mean"][0], plain, atol=1e-8)


def test_without_a_condition_effects_are_averages(fitted):
    average = npt.tl.perturbation_effects(fitted, as_anndata=True)
    assert "condition" not in average.obs
    assert (average.obs["n_cells"] == 80).all()
    each = np.mean([effects(fitted, line).X for line in LINES], axis=0)
    np.testing.assert_allclose(average.X, each, atol=0.25)
    # As batches, lines are replicates: an effect in one of two or three is not the perturbation's.
    pooled = effects(fit(lined()[0], batch_key="line"), None)
    n_apart = np.abs(average.X - pooled.X).max(axis=1) > 0.1
    assert (pooled.obs_names[n_apart] == NAMES[:1]).all()


def test_effects_by_condition_are_those_of_the_core(fitted):
    n = 1 + len(NAMES)
    code = pd.Categorical(fitted.obs["perturbation"], ["control", *NAMES]).codes
    line = pd.Categorical(fitted.obs["line"], LINES).codes
    parts = [
        pool_guides(ScreenMoments.from_array(fitted.X[line == k], code[line == k], n), range(n), n)
        for k in range(2)
    ]
    found = posterior_from(fitted).hierarchical
    for one, two, part in zip(found.conditions, fit_each(parts, rng=0), parts, strict=True):
        np.testing.assert_allclose(one.change, part.mean[1:] - part.mean[0], atol=1e-8)
        np.testing.assert_allclose(
            one.effects.posterior_mean(), two.effects.posterior_mean(), atol=0.2
        )


def test_a_perturbation_that_a_line_lacks_is_estimated_from_the_other():
    adata, truth = lined()
    adata = adata[~((adata.obs["line"] == "B") & (adata.obs["perturbation"] == "P3"))].copy()
    one = effects(fit(adata, condition_key="line"), "B")["P3"]
    assert one.obs["n_cells"].tolist() == [0]
    assert np.isnan(one.layers["raw_mean"]).all()
    assert (one.layers["data_weight"] < 0.01).all()
    np.testing.assert_allclose(one.X[0], truth[1, 3], atol=0.5)


def test_guides_count_in_every_line():
    adata, _ = lined(cells=60)
    rng = np.random.default_rng(3)
    number = rng.integers(4, size=adata.n_obs)
    guide = [f"{a}_{b}" for a, b in zip(adata.obs["perturbation"], number, strict=True)]
    adata.obs["guide"] = guide
    wide = adata.copy()
    shift = {name: 0.6 * rng.normal(size=GENES) for name in sorted(set(guide))}
    wide.X += np.array([shift[name] for name in guide])
    sd = [
        effects(fit(each, condition_key="line", guide_key="guide"), "B").layers["sd"].mean()
        for each in (adata, wide)
    ]
    assert sd[1] > 1.5 * sd[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "C"}, "There is no condition 'C': give one of A, B"),
        ({"condition": "A", "genes": "all"}, "Effects per condition are computed only for genes"),
    ],
)
def test_unknown_conditions_and_other_genes_raise(options, message):
    adata, _ = lined()
    npt.pp.setup_screen(adata, condition_key="line")
    with_fit(adata, genes=["G0", "G1", "G2"])
    with pytest.raises(ValueError, match=message):
        npt.tl.perturbation_effects(adata, **options)
    assert "perturbation_effects" not in adata.uns


def test_a_condition_without_controls_raises():
    adata, _ = lined()
    adata = adata[~((adata.obs["line"] == "B") & (adata.obs["perturbation"] == "control"))].copy()
    with pytest.raises(ValueError, match=r"obs\['line'\] have no control cells: B"):
        npt.pp.setup_screen(adata, condition_key="line")
    assert "screen" not in adata.uns


def test_a_fit_without_conditions_says_how_to_have_them():
    adata = fit(lined()[0], batch_key="line")
    with pytest.raises(ValueError, match=r"pp\.setup_screen\(adata, condition_key=\.\.\.\)"):
        npt.tl.perturbation_effects(adata, condition="A")


@pytest.mark.parametrize("kept", ["nothing", "controls"])
def test_one_condition_alone_says_so(kept):
    adata, _ = lined()
    there = (adata.obs["line"] == "A") | (
        (adata.obs["perturbation"] == "control") & (kept == "controls")
    )
    with pytest.warns(UserWarning, match=r"Fewer than two conditions of adata\.obs\['line'\] have"):
        one = fit(adata[there].copy(), condition_key="line")
    with pytest.raises(ValueError, match="at least two conditions"):
        npt.tl.perturbation_effects(one, condition="A")


def test_chains_of_conditions_and_of_all_cells_have_one_length(monkeypatch):
    sizes = []
    chosen = Chain.of_size
    monkeypatch.setattr(Chain, "of_size", lambda size: sizes.append(size) or chosen(size))
    adata = fit(lined()[0], condition_key="line")
    assert sizes[0] == (1 + len(LINES)) * len(NAMES) * adata.n_vars
