"""Controls in one batch only: effects, diagnosis and warnings, as users meet them."""

import numpy as np
import pytest

import nextpert as npt
from benchmarks._replicated import one_control_batch


def fitted(share, seed=0):
    adata, truth = one_control_batch(seed, 0.3, share)
    npt.tl.learn_dag(adata, method="given", dag=[])
    with pytest.warns(UserWarning, match="Batches without control cells confound"):
        npt.tl.fit_dag_blr(adata)
    npt.tl.perturbation_effects(adata)
    return adata, truth


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_shift_of_a_batch_is_called_an_effect(seed):
    adata, _ = fitted(0.0, seed)
    found = adata.uns["perturbation_effects"]
    assert (np.asarray(found["lfsr"]) < 0.05).sum() == 0
    q_values = adata.uns["dag_blr"]["environments"]["q_value"]
    assert (q_values > 0.05).all()


def test_the_diagnosis_names_them_and_trusts_nothing():
    adata, _ = fitted(0.15)
    npt.tl.diagnose(adata)
    found = adata.uns["diagnosis"]
    assert found["level"] == "do not trust"
    parts = found["parts"].set_index("part")
    assert "trust" not in set(parts["level"])
    words = parts.loc["batches", "verdict"]
    assert "15 of 20 perturbations" in words
    # Those of the batch with controls are not among them.
    assert "P001" in words
    assert "P000" not in words.split(")")[0]
