"""Labels that matplotlib or a log would read as more than names: they are drawn as they are."""

from __future__ import annotations

import logging

import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

import nextpert as npt

pytestmark = pytest.mark.slow

ODD = r"$b_\x$ %d {0}"  # no formula of matplotlib's, and no format of a log
FORMULA = "$b$"  # one that would be drawn as such


@pytest.fixture(scope="module")
def odd():
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=200, n_perturbed=30, perturbed=4, expected_degree=2, rng=1
    )
    targets = [name for name in adata.obs["perturbation"].unique() if name != "control"]
    names = {targets[0]: targets[0] + ODD, targets[1]: targets[1] + FORMULA}
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace(names)
    adata.var_names = [names.get(gene, gene) for gene in adata.var_names]
    wanted = names[targets[0]]
    logger, said = logging.getLogger("nextpert"), []
    ear = logging.Handler(logging.INFO)
    ear.emit = lambda record: said.append(record.getMessage())
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, wanted, n_samples=50)
    npt.tl.plan_screen(adata, wanted)
    npt.tl.plan_cells(adata, wanted, n_samples=50)
    npt.tl.target_distances(adata, wanted)
    npt.tl.perturbation_effects(adata)
    npt.tl.cpca(adata, alpha=1.0)
    npt.tl.dag_fit(adata, n_random=20)
    npt.tl.diagnose(adata)
    npt.tl.replay_design(adata, [wanted], strategies=["random"], n_rounds=2, n_repeats=2)
    logger.removeHandler(ear)
    logger.setLevel(level)
    return adata, said


@pytest.mark.slow
def test_a_log_says_them_as_they_are(odd):
    assert sum(ODD in line for line in odd[1]) >= 3


@pytest.mark.parametrize("name", npt.pl.__all__)
def test_no_name_is_a_formula(name, odd, tmp_path):
    figure = getattr(npt.pl, name)(odd[0], return_fig=True)
    figure.savefig(tmp_path / "figure.png")
    texts = figure.findobj(Text)
    shown = [text for text in texts if "$b" in text.get_text()]
    changed = [label for label in odd[0].obs["perturbation"].unique() if "$b" in label]
    assert len(changed) == 2
    assert shown or not [
        text for text in texts for label in changed if label.split("$")[0] in text.get_text()
    ]
    assert not any(text.get_parse_math() for text in shown)


def test_nor_on_the_axes_given(odd):
    figure, ax = plt.subplots()
    npt.pl.target_distances(odd[0], ax=ax)
    figure.canvas.draw()
    shown = [text for text in ax.findobj(Text) if "$b" in text.get_text()]
    assert len(shown) >= 3
    assert not any(text.get_parse_math() for text in shown)
