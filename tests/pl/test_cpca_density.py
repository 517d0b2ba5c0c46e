import matplotlib.pyplot as plt
import numpy as np
import pytest

from nextpert.pl import cpca_density


def test_one_panel_a_group_with_shared_axes_and_the_same_controls(designed):
    groups = designed.uns["cpca"]["groups"].tolist()
    figure = cpca_density(designed, return_fig=True)
    assert [ax.get_title() for ax in figure.axes] == [f"{g} (30 cells)" for g in groups]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    assert figure.get_supxlabel() == "cPC1 (log-normalised expression)"
    first, second = (ax.collections[0] for ax in figure.axes[:2])
    assert len(first.get_paths()) == len(second.get_paths()) > 1
    for one, two in zip(first.get_paths(), second.get_paths(), strict=True):
        np.testing.assert_array_equal(one.vertices, two.vertices)
    np.testing.assert_array_equal(first.get_facecolor(), second.get_facecolor())


def test_the_strongest_groups_come_first_where_not_all_are_drawn(designed):
    groups = designed.uns["cpca"]["groups"].tolist()
    labels, scores = designed.obs["perturbation"], designed.obsm["X_cpca"]
    for step, group in enumerate(groups):
        scores[(labels == group).to_numpy(), 0] += 50.0 * step
    figure = cpca_density(designed, n_top=2, return_fig=True)
    titles = [ax.get_title().split(" (")[0] for ax in figure.axes]
    assert titles == [groups[3], groups[2]]
    assert "strongest 2 of 4 perturbations" in figure.legends[0].get_title().get_text()
    named = cpca_density(designed, groups=groups, n_top=2, show=False)
    assert len(named) == 4
    assert len(cpca_density(designed, n_top=4, show=False)) == 4


def test_noise_alone_does_not_make_a_group_strong(designed):
    group = designed.uns["cpca"]["groups"][0]
    inside = np.flatnonzero(designed.obs["perturbation"] == group)
    scores = designed.obsm["X_cpca"]
    scores[:, :2] = 0.0
    scores[inside, 0] = 100.0 * np.resize([1, -1], len(inside)) + 2.0  # its mean is not known
    other = (designed.obs["perturbation"] == designed.uns["cpca"]["groups"][1]).to_numpy()
    scores[other, 0] = 1.0 + 0.01 * np.arange(other.sum())
    (ax,) = cpca_density(designed, n_top=1, show=False)
    assert ax.get_title().startswith(f"{designed.uns['cpca']['groups'][1]} (")


def test_contours_lie_where_the_cells_are(designed):
    group = designed.uns["cpca"]["groups"][0]
    inside = (designed.obs["perturbation"] == group).to_numpy()
    designed.obsm["X_cpca"][inside] += 100
    (ax,) = cpca_density(designed, groups=group, show=False)
    control, perturbed = (
        np.concatenate([p.vertices for p in c.get_paths() if len(p.vertices)])
        for c in ax.collections[:2]
    )
    assert np.abs(control).max() < 30
    np.testing.assert_allclose(
        perturbed.mean(0), designed.obsm["X_cpca"][inside, :2].mean(0), atol=2
    )


def test_the_controls_may_be_a_group(designed):
    group = designed.uns["cpca"]["groups"][0]
    first, second = cpca_density(designed, groups=["control", group], show=False)
    assert first.get_title() == "control (300 cells)"
    assert second.get_title() == f"{group} (30 cells)"
    assert (len(first.collections), len(second.collections)) == (1, 2)
    (alone,) = cpca_density(designed, groups=[group], show=False)
    for one, two in zip(alone.collections, second.collections, strict=True):
        for a, b in zip(one.get_paths(), two.get_paths(), strict=True):
            np.testing.assert_allclose(a.vertices, b.vertices)
    (only,) = cpca_density(designed, groups="control", show=False)
    assert len(only.collections) == 1


def test_few_or_degenerate_cells_are_drawn_as_points(designed):
    labels = designed.obs["perturbation"].astype(str).to_numpy()
    groups = designed.uns["cpca"]["groups"]
    few = np.flatnonzero(labels == groups[0])
    labels[few[3:]] = "rest"
    designed.obs["perturbation"] = labels
    flat = labels == groups[1]
    designed.obsm["X_cpca"][flat, 1] = 0.5
    axes = cpca_density(designed, groups=groups[:2], show=False)
    for ax, n in zip(axes, (3, flat.sum()), strict=True):
        assert len(ax.collections[-1].get_offsets()) == n
    few = designed[np.r_[0:4, 300 : designed.n_obs]].copy()
    for ax in cpca_density(few, groups=groups[2:], show=False):
        offsets = ax.collections[0].get_offsets()  # of the controls
        np.testing.assert_allclose(offsets, few.obsm["X_cpca"][:4, :2])


def test_bad_input_is_named(designed):
    for options, message in (
        ({"groups": ["NOPE"]}, "NOPE"),
        ({"groups": []}, "groups is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            cpca_density(designed, **options)
    assert not plt.get_fignums()
