"""Columns that look like batches but are not declared: found, named, and no verdict of trust."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import undeclared_batches as module
from nextpert._adata.roles import Roles
from nextpert._adata.undeclared_batches import shifted_covariates, undeclared_batches
from tests._screens import diagnosis_of, screen_of, with_graph

pytestmark = pytest.mark.brief_chain

N_GENES, N_PERTURBED = 12, 8
GENES = [f"G{k}" for k in range(N_GENES)]
NAMES = GENES[:N_PERTURBED]


def screen(shift=0.3, *, rng=0, n_cells=50, n_control=300, nested=False):
    """Coexpressed cells of eight knockdowns, divided unevenly among two plates."""
    rng = np.random.default_rng(rng)
    group = np.repeat(np.arange(N_PERTURBED + 1), [n_control] + [n_cells] * N_PERTURBED)
    n = len(group)
    effects = np.vstack([np.zeros(N_GENES), -1.5 * np.eye(N_GENES)[:N_PERTURBED]])
    share = np.append(0.5, rng.permutation(np.linspace(0.05, 0.95, N_PERTURBED)))
    share = np.where(np.arange(N_PERTURBED + 1) > 0, share.round(), share) if nested else share
    plate = rng.random(n) < share[group]
    x = 4 + rng.normal(size=(n, N_GENES)) + effects[group]
    x += 0.6 * rng.normal(size=(n, 1)) * rng.normal(size=N_GENES)
    x += shift * x.std(axis=0) * rng.choice([-1, 1], N_GENES) * plate[:, None]
    adata = screen_of(
        x, np.array(["control", *NAMES])[group], GENES, rack=np.where(plate, "b", "a")
    )
    return with_graph(adata)


def searched(adata, roles=None):
    return undeclared_batches(adata, np.arange(N_GENES), NAMES, roles or Roles())


# -- the search ---------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_a_batch_is_found_whatever_its_name(nested):
    found = searched(screen(nested=nested))
    assert (found.column, found.n_levels) == ("rack", 2)
    assert found.p_value < 0.001
    assert found.call == 'npt.pp.setup_screen(adata, batch_key="rack")'


def test_the_width_is_that_of_the_shifts():
    adata, shift = screen(0.6, n_cells=2000, n_control=4000), 0.6
    found = searched(adata)
    share = adata.obs["rack"].eq("b").groupby(adata.obs["perturbation"]).mean()
    bias = shift * (share[NAMES] - share["control"]).to_numpy()
    error = np.sqrt(1 / 2000 + 1 / 4000)
    assert found.width == pytest.approx(np.sqrt(1 + np.mean(bias**2) / error**2), rel=0.1)
    assert found.shifted == pytest.approx(np.mean(np.abs(bias) > error), abs=0.13)
    even = screen(0.6)
    even.obs["rack"] = np.where(np.arange(even.n_obs) % 2, "b", "a")
    even.X = even.X + 0.5 * even.obs["rack"].eq("a").to_numpy()[:, None]
    assert searched(even).width < 1.02


def test_the_call_adds_to_the_roles_and_further_columns_are_named():
    adata = screen()
    adata.obs["day"] = np.where(np.arange(adata.n_obs) % 2, "one", "two")
    adata.obs["lane"] = adata.obs["rack"] + (np.arange(adata.n_obs) % 3).astype(str)
    adata.X = adata.X + 0.5 * (np.arange(adata.n_obs) % 3)[:, None]
    found = searched(adata, Roles(batch_key=("day",)))
    assert found.column == "lane"  # finer, and explains more
    assert found.also == ("rack",)
    assert found.call == 'npt.pp.setup_screen(adata, batch_key=["day", "lane"])'
    assert searched(adata, Roles(batch_key=("lane",))) is None  # explains the racks
    adata.obs["depth"] = np.arange(adata.n_obs)  # a quantity divides no cells
    assert searched(adata, Roles(covariates=("depth",))).column == "lane"


def quiet(obs):
    return np.random.default_rng(0).choice(list("xyz"), len(obs))


@pytest.mark.parametrize("column", [
    lambda obs: obs["perturbation"].map({"control": "none"}).fillna("pathway " + obs["rack"].min()),
    lambda obs: obs["perturbation"].str[-1].replace("l", "control"),  # a group of targets
    lambda obs: obs["perturbation"] + "_" + obs["rack"],  # looks like guides
    lambda obs: np.arange(len(obs)), lambda obs: np.arange(len(obs)) / 7, lambda obs: "one",
    lambda obs: [[1]] * len(obs), lambda obs: np.where(np.arange(len(obs)) < 4, "rare", "other"),
    quiet,
])  # fmt: skip
def test_other_columns_are_no_batches(column):
    adata = screen()
    extra = column(adata.obs)
    del adata.obs["rack"]
    adata.obs["extra"] = extra
    assert searched(adata) is None


@pytest.mark.parametrize("name", [
    "leiden", "louvain_0.5", "seurat_clusters", "Phase", "cell_type", "mixscape_class", "n_counts",
    "predicted_doublet", "number_of_guides", "RNA_snn_res.0.8", "num_features", "S_score",
])  # fmt: skip
def test_columns_that_look_computed_are_no_batches(name):
    adata = screen()
    adata.obs = adata.obs.rename(columns={"rack": name})
    assert searched(adata) is None


@pytest.mark.parametrize(
    "name", ["orig.ident", "replicate", "lane", "donor", "HTO", "passage", "plate_number"]
)
@pytest.mark.parametrize("kind", [str, float, bool])
def test_columns_with_other_names_are_batches(name, kind):
    adata = screen()
    adata.obs[name] = pd.Series(adata.obs.pop("rack") == "b").astype(kind)
    assert searched(adata).column == name


def test_a_sample_of_cells_and_genes_is_read(monkeypatch):
    adata, read, sizes = screen(), module.read_screens, []

    def noted(adata, columns, codings, **options):
        sizes.append((len(columns), *(int((one.codes >= 0).sum()) for one in codings)))
        return read(adata, columns, codings, **options)

    monkeypatch.setattr(module, "read_screens", noted)
    monkeypatch.setattr(module, "_CELLS", 300)
    monkeypatch.setattr(module, "_GENES", 5)
    assert searched(adata) is not None
    assert sizes == [(5, 300)]


def test_guides_that_are_declared_are_no_batches():
    """A column that numbers the guides of every label is constant within a guide."""
    adata = screen(0.0)
    del adata.obs["rack"]
    number = np.arange(adata.n_obs) % 2
    adata.obs["guide"] = adata.obs["perturbation"] + "_" + number.astype(str)
    adata.obs["copy"] = number
    adata.X = adata.X + number[:, None]
    assert searched(adata).column == "copy"
    assert searched(adata, Roles(guide_key="guide")) is None


@pytest.mark.slow
def test_random_columns_of_screens_with_effects_cause_no_alarm():
    """At most one of 200 screens, each with three random columns."""
    n_alarms = 0
    for k in range(200):
        adata, rng = screen(0.0, rng=k, n_cells=20, n_control=60), np.random.default_rng(k)
        for name in ("one", "two"):
            adata.obs[name] = rng.choice(list("abc"), adata.n_obs, p=[0.6, 0.3, 0.1])
        n_alarms += searched(adata) is not None
    assert n_alarms <= 1


def test_cells_that_differ_in_phase_are_named():
    adata, rng = screen(0.0), np.random.default_rng(0)
    adata.obs["phase"] = rng.choice(["G1", "S", "G2M"], adata.n_obs)
    assert shifted_covariates(adata, NAMES, Roles()) == ()
    arrested = adata.obs["perturbation"].eq("G3") & (rng.random(adata.n_obs) < 0.6)
    adata.obs.loc[arrested, "phase"] = "S"
    assert shifted_covariates(adata, NAMES, Roles()) == (("phase", ("G3",)),)
    # Within batches: a batch of other phases, with most cells of G5.
    adata.obs["day"] = np.where(
        adata.obs["perturbation"].eq("G5") | (rng.random(adata.n_obs) < 0.2), "b", "a"
    )
    other = adata.obs["day"].eq("b") & (rng.random(adata.n_obs) < 0.8)
    adata.obs.loc[other, "phase"] = "G2M"
    assert "G5" in shifted_covariates(adata, NAMES, Roles())[0].perturbations
    within = shifted_covariates(adata, NAMES, Roles(batch_key=("day",)))
    assert within == (("phase", ("G3",)),)
    # A class of which the controls have one level alone says nothing.
    adata.obs["mixscape_class"] = adata.obs["perturbation"]
    assert shifted_covariates(adata, NAMES, Roles(batch_key=("day",))) == within


def test_differences_by_chance_are_not_named():
    adata, rng = screen(0.0), np.random.default_rng(4)
    for k in range(4):
        adata.obs[f"phase{k}"] = rng.choice(["S", "G1"], adata.n_obs)
    assert shifted_covariates(adata, NAMES, Roles()) == ()


# -- fit and diagnosis --------------------------------------------------------------------------


def test_fit_and_diagnosis_name_the_column_and_are_not_trusted():
    adata = screen(0.8)
    adata.obs["phase"] = np.where(adata.obs["perturbation"] == "G3", "S", "G1")
    adata.obs.loc[np.arange(adata.n_obs) % 4 == 0, "phase"] = "S"
    npt.pp.setup_screen(adata)
    for step in (npt.tl.fit_dag_blr, npt.tl.diagnose):
        with pytest.warns(UserWarning, match=r"adata.obs\['rack'\] is not declared") as caught:
            step(adata)
        said = " ".join(str(each.message) for each in caught)
        assert 'npt.pp.setup_screen(adata, batch_key="rack")' in said
    found = adata.uns["diagnosis"]
    parts = found["parts"].set_index("part")
    assert found["level"] == "do not trust"
    assert parts.index[0] == "batches"
    assert (
        parts.loc["batches", "level"] == parts.loc["negative controls", "level"] == found["level"]
    )
    assert 'batch_key="rack"' in parts.loc["batches", "verdict"]
    assert not parts["level"].eq("trust").any()
    assert "calibrated" not in found["verdict"]
    assert "use the shrunken effects. " not in found["verdict"]
    assert "Cells of G3 differ from the controls in adata.obs['phase']" in found["verdict"]
    factor = found["summary"].set_index("quantity")["value"]["standard_error_factor"]
    assert f"multiplied by {factor:.2f}" in parts.loc["cells", "verdict"]
    declared = diagnosis_of(adata, batch_key="rack")
    assert "calibrated" in declared["verdict"]
    assert not declared["parts"]["verdict"].str.contains("not declared").any()


@pytest.mark.slow
def test_a_batch_that_is_divided_evenly_asks_for_care():
    adata = screen(0.0)
    adata.obs["rack"] = np.where(np.arange(adata.n_obs) % 2, "b", "a")
    adata.X = adata.X + 0.5 * adata.obs["rack"].eq("a").to_numpy()[:, None]
    found = diagnosis_of(adata)
    parts = found["parts"].set_index("part")
    assert parts.loc["batches", "level"] == parts.loc["negative controls", "level"] == "care"
    assert "calibrated" not in found["verdict"]
