"""Of large screens as well, figures fit on a screen and names do not touch."""

import pandas as pd
import pytest

import nextpert as npt
from nextpert.pl._figure import SCREEN, panels_of
from tests._screens import true_graph, with_fit

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]


@pytest.fixture(scope="module")
def large():
    """200 genes, 50 perturbations."""
    adata = npt.datasets.simulated_screen(
        n_genes=200, n_control=150, n_perturbed=12, perturbed=50, expected_degree=2, rng=3
    )
    with_fit(adata, true_graph(adata))
    first = str(adata.uns["dag_blr"]["environments"]["perturbation"][0])
    npt.tl.cpca(adata, alpha=1.0, n_components=2)
    npt.tl.dag_fit(adata, n_random=20)
    npt.tl.diagnose(adata)
    npt.tl.target_distances(adata, first)
    npt.tl.perturbation_effects(adata)
    npt.tl.plan_cells(adata, first)
    for _ in range(2):
        npt.tl.design_interventions(adata, first, n_samples=50)
    npt.tl.plan_screen(adata, first, n_perturbations=45, strategy="exploit")
    npt.tl.replay_design(
        adata, [first], strategies=["random"], n_rounds=2, n_repeats=2, n_perturbations=1
    )
    stored = adata.uns["replay"]
    for part in ("table", "targets"):  # the same again, by other names
        copies = [stored[part].assign(target=f"TARGET{i}") for i in range(50)]
        stored[part] = pd.concat(copies, ignore_index=True)
    return adata


@pytest.mark.parametrize("name", npt.pl.__all__)
def test_at_most_one_screen_high_and_names_apart(name, large, overlaps, tick_labels):
    figure = getattr(npt.pl, name)(large.copy(), return_fig=True)
    width, height = figure.get_size_inches()
    assert height <= SCREEN + 1e-9
    assert width < 3 * SCREEN
    figure.canvas.draw()
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.03, box  # nothing cut off
    for panel in figure.axes:
        for axis in (panel.xaxis, panel.yaxis):
            assert overlaps(tick_labels(axis), figure) == []
    titles = [panel.title for panel in figure.axes]
    assert overlaps(titles, figure) == []


@pytest.mark.parametrize("n", [1, 4, 5, 51])
def test_panels_fill_a_grid(n):
    panels, columns = panels_of(n, 4, (2.2, 2.2), (0.9, 1.2))
    rows = -(-n // columns)
    assert len(panels) == len(panels[0].figure.axes) == n
    assert (rows - 1) * columns < n <= rows * columns
    assert panels[0].figure.get_figheight() <= SCREEN
