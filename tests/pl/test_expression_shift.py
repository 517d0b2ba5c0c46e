import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.patches import Rectangle, StepPatch

from nextpert.pl import expression_shift


@pytest.fixture
def screen():
    """Three genes with zeros; C hardly ever seen; A knocked down, B+C a double."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "A", "B", "C", "B+C", "A+control"], [200, 60, 40, 30, 20, 10])
    x = rng.gamma(4, 0.5, (360, 3)) * (rng.random((360, 3)) < [0.9, 0.5, 0.02])
    x[np.isin(labels, ["A", "A+control"]), 0] *= rng.random(70) < 0.3
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(360)])
    var = pd.DataFrame(index=["A", "B", "C"])
    return ad.AnnData(x, obs, var, layers={"sparse": sp.csr_matrix(x)})


def _cells(screen, labels, gene):
    return screen[screen.obs["perturbation"].isin(labels), gene].X[:, 0]


def _zeros(ax):
    return [p for p in ax.patches if isinstance(p, Rectangle) and p.get_x() < 0 and p.get_y() == 0][
        -2:
    ]


def test_means_zeros_and_the_cells_of_each_gene(screen):
    axes = expression_shift(screen, show=False)
    assert [ax.get_title().split(" (")[0] for ax in axes] == ["A", "B", "C"]
    own = {"A": ["A", "A+control"], "B": ["B"], "C": ["C"]}  # not those of B+C
    for ax, (gene, labels) in zip(axes, own.items(), strict=True):
        control, perturbed = _cells(screen, ["control"], gene), _cells(screen, labels, gene)
        means = [line.get_xdata()[0] for line in ax.lines]
        np.testing.assert_allclose(means, [control.mean(), perturbed.mean()])
        shares = [bar.get_height() for bar in _zeros(ax)]
        np.testing.assert_allclose(shares, [(control == 0).mean(), (perturbed == 0).mean()])
        assert f"({len(perturbed)} cells)" in ax.get_title()
        assert "zeros" in [text.get_text() for text in ax.get_xticklabels()]
        error = np.sqrt(control.var(ddof=1) / len(control) + perturbed.var(ddof=1) / len(perturbed))
        shift, shown = ax.get_title().split("\n")[1].replace("−", "-").split(" ± ")
        np.testing.assert_allclose(float(shift), perturbed.mean() - control.mean(), atol=0.006)
        np.testing.assert_allclose(float(shown), 1.645 * error, atol=0.006)


def test_histograms_are_shares_of_all_cells_of_their_group(screen):
    (ax,) = expression_shift(screen, genes="A", show=False)
    control, perturbed = (p.get_data() for p in ax.patches if isinstance(p, StepPatch))
    np.testing.assert_array_equal(control.edges, perturbed.edges)
    groups = [_cells(screen, labels, "A") for labels in (["control"], ["A", "A+control"])]
    wanted = [np.histogram(v[v > 0], control.edges)[0] / len(v) for v in groups]
    scale = control.values.max() / wanted[0].max()
    np.testing.assert_allclose(control.values, scale * wanted[0])
    np.testing.assert_allclose(perturbed.values, scale * wanted[1])
    assert control.edges[0] == 0
    np.testing.assert_allclose(control.edges[-1], max(v.max() for v in groups))


def test_zeros_and_the_order_of_genes(screen):
    one = expression_shift(screen, genes=["C", "A"], show=False)
    two = expression_shift(screen, genes=["C", "A"], layer="sparse", show=False)
    assert [ax.get_title() for ax in one] == [ax.get_title() for ax in two]
    assert one[0].get_title().startswith("C")
    screen.X[:, 1] += 0.1
    (ax,) = expression_shift(screen, genes="B", show=False)  # no strip
    assert "zeros" not in [text.get_text() for text in ax.get_xticklabels()]
    assert not _zeros(ax)
    screen.X[:, 2] = 0  # a gene that is never seen
    (ax,) = expression_shift(screen, genes="C", show=False)
    assert [bar.get_height() for bar in _zeros(ax)] == [1, 1]
    assert ax.get_title() == "C (30 cells)\n+0.00 ± 0.00"


def test_errors(screen):
    screen.obs["perturbation"] = screen.obs["perturbation"].replace({"C": "B+C"})
    with pytest.raises(ValueError, match=r"in these measured genes alone: C, NOPE.*holds A, B"):
        expression_shift(screen, genes=["A", "C", "NOPE"])
    screen.obs["perturbation"] = screen.obs["perturbation"].replace({"A": "X", "B": "X"})
    screen.obs["perturbation"] = screen.obs["perturbation"].replace({"A+control": "B+C"})
    with pytest.raises(ValueError, match="measured genes alone: none given"):
        expression_shift(screen)
    assert not plt.get_fignums()
