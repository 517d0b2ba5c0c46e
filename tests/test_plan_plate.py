"""The benchmark of plates on real screens: halves, truths and what is scored."""

from argparse import Namespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert._adata.roles import Roles

pytestmark = pytest.mark.benchmarks


@pytest.fixture
def halves(tmp_path):
    """Half of a screen of 6 genes: G0 to G3 perturbed, each moving its own; E moves none."""
    from benchmarks._screens import Source, read_screen
    from benchmarks.plan_plate import Halves

    rng = np.random.default_rng(0)
    label = np.repeat(["control", "G0", "G1", "G2", "G3", "E"], [400, *[120] * 5])
    mean = np.full((len(label), 6), 2.0)
    for k in range(4):
        mean[label == f"G{k}", k] = 0.5
    obs = pd.DataFrame({"perturbation": label}, index=np.arange(len(label)).astype(str))
    cells = ad.AnnData(mean + 0.5 * rng.normal(size=mean.shape), obs)
    cells.var_names = [f"G{k}" for k in range(6)]
    cells.write_h5ad(tmp_path / "screen.h5ad")
    screen = read_screen(tmp_path, Source("screen.h5ad", Roles(), counts=False))
    return Halves(screen, None, 0, graph=False)


def test_halves_share_no_cell_and_truths_are_those_of_the_other(halves):
    from benchmarks.plan_plate import above_noise

    x, label = np.asarray(halves.screen.cells.X), halves.label
    for name in (*halves.names, "control"):
        mine = label == name
        assert (mine & halves.known).sum() == mine.sum() // 2
        np.testing.assert_allclose(
            list(halves.state(name).values()), x[mine & ~halves.known].mean(axis=0)
        )
    found = halves.distances("G1")

    def unbiased(a, b):
        one, two = (x[(label == name) & ~halves.known] for name in (a, b))
        noise = sum(part.var(axis=0, ddof=1).sum() / len(part) for part in (one, two))
        return ((one.mean(axis=0) - two.mean(axis=0)) ** 2).sum() - noise

    assert found["G1"] == 0
    assert set(found) == {"G0", "G1", "G2", "G3", "E"}
    assert found["G2"] == pytest.approx(unbiased("G2", "G1") / unbiased("control", "G1"))
    assert above_noise(halves.screen) == ["G0", "G1", "G2", "G3"]


def test_plates_hold_what_they_should(halves):
    from benchmarks.plan_plate import plates

    found = plates(halves, halves.fit(), "G1", "measured", 2, 200)
    for way in ("plan_screen, strategy exploit", "no plate, best known", "cells' means"):
        assert found[way][:2] == (1.0, 0.0)
    assert found["greedy, least predicted"].held == 1
    assert found["plan_screen, strategy exploit"].said == pytest.approx(1, abs=0.02)
    assert found["random"].held == pytest.approx(2 / 5)
    absent = halves.fit(without="G1")
    assert "G1" not in set(absent.obs["perturbation"])
    others = plates(halves, absent, "G1", "others", 4, 200)
    assert others["random"].held == 1
    assert others["plan_screen, strategy exploit"].held == 1
    assert others["plan_screen, strategy exploit"].left > 0.5
    tried = plates(halves, absent, "G1", "never tried", 2, 200)
    assert tried["random"].held == pytest.approx(2 / 7)
    assert tried["plan_screen, strategy exploit"].held == 1  # its own change is expected
    assert tried["cells' means"].held == 0


def test_a_section_has_every_way_and_the_plates_in_full(halves):
    from benchmarks.plan_plate import run

    args = Namespace(splits=1, wells=2, cells=200, graph=False, figures=None)
    (text,) = run(halves.screen, None, args)
    assert "screen: 4 of 5 perturbations above noise, 1 splits, plates of 2, no graph" in text
    assert "Plates: 4 measured, 4 others, 4 never tried." in text
    assert text.count("probability_contains_best") == 4
    assert text.count("| perturbation | n_cells |") == 2
