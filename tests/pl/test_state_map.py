"""States lie on the map as far apart as their effects are, as nearly as two axes can show."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import nextpert as npt
from nextpert.pl import state_map


def drawn(ax):
    """Points of perturbations, target (if there is one) and control."""
    return [np.asarray(points.get_offsets()) for points in ax.collections]


def test_distances_in_two_dimensions_are_exact(designed):
    stored = designed.uns["perturbation_effects"]
    del designed.uns["plan"], designed.uns["design"]
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(len(stored["genes"]), 2)))[0]
    stored["mean"][:] = rng.normal(size=(len(stored["mean"]), 2)) @ plane.T
    ax = state_map(designed, show=False)
    perturbations, control = drawn(ax)
    states = np.vstack([stored["mean"], np.zeros(len(plane))])
    order = np.argsort(np.linalg.norm(perturbations - control, axis=1))
    expected = np.argsort(np.linalg.norm(stored["mean"], axis=1))
    found = np.vstack([perturbations[order], control])
    np.testing.assert_allclose(pdist(found), pdist(states[[*expected, -1]]), rtol=1e-6)
    shares = [int(x.get_label_text().split("(")[1].split("%")[0]) for x in (ax.xaxis, ax.yaxis)]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert shares[0] >= shares[1]


def test_the_target_of_a_plan_is_a_star_over_its_genes(designed, overlaps):
    plan, stored = designed.uns["plan"], designed.uns["perturbation_effects"]
    ax = state_map(designed, show=False)
    perturbations, target, control = drawn(ax)
    fit = designed.uns["dag_blr"]
    change = plan["target_mean"] - fit["control_mean"]
    states = np.vstack([stored["mean"], change, np.zeros_like(change)])
    centred = states - states.mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    expected = vectors[:, -2:] * np.sqrt(values[-2:])
    found = np.vstack([perturbations, target, control])
    assert len(found) == len(states)
    expected_to_target = np.linalg.norm(expected[:-2] - expected[-2], axis=1)
    distance = np.linalg.norm(perturbations - target, axis=1)
    np.testing.assert_allclose(np.sort(distance), np.sort(expected_to_target), rtol=1e-6)
    assert "36 genes of the target" in ax.get_title()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[1].startswith("target: ")
    ax.figure.canvas.draw()
    assert overlaps(ax.texts, ax.figure) == []


def test_few_states_and_absent_genes(designed):
    plan, design = designed.uns.pop("plan"), designed.uns.pop("design")
    ax = state_map(designed, n_top=1, show=False)
    perturbations, control = drawn(ax)
    length = np.linalg.norm(designed.uns["perturbation_effects"]["mean"], axis=1).max()
    assert np.linalg.norm(perturbations - control) == pytest.approx(length)
    with pytest.raises(ValueError, match=r"no plan 'absent': run tl.plan_screen first"):
        state_map(designed, target_key="absent")
    designed.uns |= {"plan": plan, "design": design}
    npt.tl.perturbation_effects(designed, genes=["MYC", "STAT1"], key_added="two")
    with pytest.raises(ValueError, match=r"'two'\] has no effects on 34 genes of the target"):
        state_map(designed, key="two")
