import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.text import Text

import nextpert as npt
from tests._screens import simulated_fit


def pytest_collection_modifyitems(items):
    """Plots compare no effects with the truth: all fit a brief chain, in whatever order they run.

    A session's fixture is made under the marks of the first test that asks for it.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.brief_chain)


@pytest.fixture(scope="session")
def _designed():
    adata = simulated_fit(n_control=300, n_perturbed=30, perturbed=4, rng=2)
    for name in ("remaining_variance", "greedy", "remaining_variance"):
        npt.tl.design_interventions(adata, {"MYC": 1.0}, acquisition=name, candidates="genes")
    npt.tl.cpca(adata, alpha=1.0, n_components=3)
    npt.tl.dag_fit(adata, n_random=30)
    npt.tl.diagnose(adata)
    npt.tl.perturbation_effects(adata)
    state = str(adata.uns["cpca"]["groups"][0])
    npt.tl.target_distances(adata, state)
    npt.tl.plan_cells(adata, npt.Target(state=state, own_genes="include"))
    npt.tl.plan_screen(adata, {"MYC": 1.0}, candidates="genes", strategy="exploit")
    npt.tl.replay_design(adata, strategies=["exact_greedy"], n_rounds=2, n_repeats=2)
    return adata


@pytest.fixture
def designed(_designed):
    """A screen with graph, posterior, three rounds of design and contrastive components."""
    return _designed.copy()


@pytest.fixture(scope="session")
def overlaps():
    """Return the pairs of texts of a figure that overlap each other."""

    def find(texts, figure):
        renderer = figure.canvas.get_renderer()
        # Of an annotation without its arrow.
        boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts if t.get_text()]
        boxes = [(text, box) for text, box in boxes if np.isfinite(box.extents).all()]
        return [
            (a, b)
            for i, (a, one) in enumerate(boxes)
            for b, two in boxes[i + 1 :]
            if one.shrunk(0.9, 0.9).overlaps(two.shrunk(0.9, 0.9))
        ]

    return find


@pytest.fixture(scope="session")
def tick_labels():
    """Return the tick labels of an axis that lie within its limits; the others are not drawn."""

    def find(axis):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        return [tick.label1 for tick in ticks if tick.label1.get_visible()]

    return find


@pytest.fixture(scope="session")
def rows():
    """Return of each row drawn with an interval: its place, value, ends, and whether it is filled.

    Those drawn in one go are found in one collection of lines, and the points after it.
    """

    def find(ax):
        found = []
        for lines, points in itertools.pairwise(ax.collections):
            if isinstance(lines, LineCollection) and isinstance(points, PathCollection):
                ends = np.array([segment[:, 0] for segment in lines.get_segments()])
                at = np.asarray(points.get_offsets())
                if len(at) and len(ends) == len(at):
                    faces = np.broadcast_to(points.get_facecolors(), (len(at), 4))
                    filled = (faces[:, :3] != 1.0).any(axis=1)
                    found += zip(at[:, 1], at[:, 0], *ends.T, filled, strict=True)
        table = pd.DataFrame(found, columns=["place", "value", "low", "high", "filled"])
        return table.sort_values("place", kind="stable").reset_index(drop=True)

    return find
