"""Large screens are computed in blocks of perturbations, and no table of them is copied."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.posterior import posterior_from
from nextpert.core import _blas
from nextpert.core._blas import in_blocks
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.goal import Goal
from nextpert.study.pool import read_candidates

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]


def screen() -> object:
    adata = npt.datasets.simulated_screen(n_genes=12, n_control=300, n_perturbed=40, rng=1)
    npt.tl.learn_dag(adata, method="boss")
    return adata


def table() -> object:
    rng = np.random.default_rng(0)
    names, genes = [f"p{j:02d}" for j in range(30)], [f"g{i}" for i in range(10)]
    true = rng.normal(size=(30, 10)) * (rng.random((30, 1)) < 0.5)
    seen = pd.DataFrame(true + 0.2 * rng.normal(size=true.shape), names, genes)
    return npt.pp.effect_table(seen, pd.DataFrame(0.2, names, genes), n_cells=100, n_controls=1000)


def results(adata: object) -> dict[str, np.ndarray]:
    """Return what a fit, its effects and a plan say."""
    npt.tl.fit_dag_blr(adata)
    npt.tl.perturbation_effects(adata)
    effects = adata.uns["perturbation_effects"]
    npt.tl.plan_screen(adata, effects["perturbations"][2], n_perturbations=4, n_cells=400)
    plate = adata.uns["plan"]["plate"].select_dtypes("number")
    fit = adata.uns["dag_blr"]["hierarchical"]
    return {
        **{name: effects[name] for name in ("mean", "sd", "lower", "upper", "lfsr", "raw_mean")},
        **{name: effects["programs"][name] for name in ("shares", "scores")},
        "weight": effects["data_weight"],
        "plate": plate,
        "squares": fit["squares"],
    }


@pytest.mark.parametrize("of", [screen, table])
def test_in_blocks_as_at_once(of, monkeypatch):
    whole = results(of())
    monkeypatch.setattr(_blas, "_ROOM", 25)  # two or three perturbations at a time
    assert len(in_blocks(30, 10)) == 15
    for name, value in results(of()).items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, whole[name], rtol=1e-5, obj=name)
        else:
            np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("signature", [None, np.arange(10.0)])
def test_distances_in_blocks_are_those_at_once(signature, monkeypatch):
    adata = table()
    npt.tl.fit_dag_blr(adata)
    fit = posterior_from(adata)
    goal = Goal(np.zeros(10), states=np.ones((1, 10)), signature=signature)

    def found():
        states = read_candidates(None, fit).states(fit)
        ranked = ranked_distance(states, goal, n_samples=400, rng=0)
        return ranked.draws, ranked.centre, ranked.low

    whole = found()
    monkeypatch.setattr(_blas, "_ROOM", 25)
    for one, two in zip(found(), whole, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-9)


@pytest.mark.parametrize("of", [screen, table])
def test_tables_of_very_many_effects_are_in_single_precision(of, monkeypatch, tmp_path):
    whole = results(of())
    monkeypatch.setattr("nextpert.core._codec._DOUBLE", 20)
    adata = of()
    found = results(adata)
    fit = adata.uns["dag_blr"]
    kept = [fit["means"]["mean"], fit["screen"]["squares"]]
    if of is table:
        kept += [adata.X, adata.layers["se"], fit["screen"]["counted"]]
    for each in (*kept, fit["hierarchical"]["effects"]["expected"]):
        assert each.dtype == np.float32
    adata.write_h5ad(tmp_path / "large.h5ad")
    back = ad.read_h5ad(tmp_path / "large.h5ad")
    npt.tl.perturbation_effects(back)  # without a warning that its cells have changed
    np.testing.assert_array_equal(back.uns["perturbation_effects"]["mean"], found["mean"])
    for name in ("mean", "sd", "lower", "upper", "lfsr", "weight", "raw_mean"):
        assert whole[name].dtype == np.float64
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-5, atol=1e-6)
