"""Labels that matplotlib or a log would read as more than names: they are drawn as they are."""

import logging

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

import nextpert as npt
from tests._screens import true_graph, with_fit

pytestmark = pytest.mark.slow

ODD = r"$b_\x$ %d {0}"  # no formula of matplotlib's, and no format of a log
FORMULA = "$b$"  # one that would be drawn as such


def test_no_name_is_a_formula_or_a_format(caplog):
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=200, n_perturbed=30, perturbed=4, expected_degree=2, rng=1
    )
    one, two = [name for name in adata.obs["perturbation"].unique() if name != "control"][:2]
    names = {one: one + ODD, two: two + FORMULA}
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace(names)
    adata.var_names = [names.get(gene, gene) for gene in adata.var_names]
    with caplog.at_level(logging.INFO, "nextpert"):
        with_fit(adata, true_graph(adata))
        for _ in range(2):
            npt.tl.design_interventions(adata, names[one], n_samples=50)
        npt.tl.plan_screen(adata, names[one], strategy="exploit")
        npt.tl.target_distances(adata, names[one])
        npt.tl.perturbation_effects(adata)
    assert sum(ODD in record.getMessage() for record in caplog.records) >= 3
    given = plt.figure().subplots()
    npt.pl.target_distances(adata, ax=given)
    plots = ("dag", "design", "expression_shift", "perturbation_counts", "perturbation_effects")
    for figure in (*(getattr(npt.pl, name)(adata, return_fig=True) for name in plots), given):
        (figure if figure is not given else given.figure).canvas.draw()
        shown = [text for text in figure.findobj(Text) if "$b" in text.get_text()]
        assert len(shown) >= 2
        assert not any(text.get_parse_math() for text in shown)
