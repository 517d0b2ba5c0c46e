"""Results that are shown belong to the cells: every reader notices a changed screen."""

import importlib
import warnings
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from tests._screens import new_copies, small_cells

pytestmark = [
    pytest.mark.brief_chain,
    pytest.mark.filterwarnings("ignore:Perturbations left|Batches nest"),
]

NOT_OURS = "does not belong to the present screen"
# These draw the cells as they are now, without a stored result.
OF_CELLS = {"expression_shift", "perturbation_counts"}


@new_copies
def shown():
    """Make a screen with guides and with the results of every function."""
    adata = small_cells()
    labels = adata.obs["perturbation"].astype(str)
    n = np.arange(adata.n_obs)
    adata.obs["guide"] = pd.Categorical([f"{a}_{k}" for a, k in zip(labels, n % 3, strict=True)])
    with warnings.catch_warnings(action="ignore"):
        npt.pp.setup_screen(adata, guide_key="guide")
        npt.tl.learn_dag(adata, method="boss", search_options={"n_runs": 1})
        npt.tl.fit_dag_blr(adata)
        npt.tl.design_interventions(adata, "MYC", n_samples=10)
        npt.tl.dag_fit(adata, n_random=5)
        npt.tl.diagnose(adata)
        npt.tl.cpca(adata, alpha=1.0)
        npt.tl.target_distances(adata, "MYC")
        npt.tl.perturbation_effects(adata)
        npt.tl.plan_cells(adata, budget=5000)
        npt.tl.plan_screen(adata, "MYC", n_perturbations=2, strategy="exploit")
        npt.tl.plan_loading(adata)
        npt.tl.replay_design(adata, ["MYC"], strategies=["exact_greedy"], n_rounds=2, n_repeats=2)
    return adata


def counts(adata):
    adata.X = adata.X * np.where(np.arange(adata.n_vars) == 0, 1.1, 1.0)
    return adata


def labels(adata):
    for column in ("perturbation", "guide"):
        names = adata.obs[column].astype(object)
        swapped = names.where(names.isna(), names.astype(str).str.replace("STK3", "-"))
        swapped = swapped.str.replace("OXR1", "STK3").str.replace("-", "OXR1", regex=False)
        adata.obs[column] = pd.Categorical(swapped)
    return adata


def rows(adata):
    # Controls as well, which all results know.
    return adata[20:].copy()


def genes(adata):
    return adata[:, 1:].copy()


def guides(adata):
    adata.obs["guide"] = np.roll(np.asarray(adata.obs["guide"]), 1)
    return adata


def fit(adata):
    with warnings.catch_warnings(action="ignore"):
        npt.tl.fit_dag_blr(adata, shift_sd=0)
    return adata


CHANGES = (counts, labels, rows, genes, guides, fit)
PLOTS = sorted(set(npt.pl.__all__) - OF_CELLS)
TABLES = sorted(name for name in npt.get.__all__ if name.endswith("_df"))
WITHOUT_FIT = {"dag", "dag_fit", "cpca_density", "target_distances"}


def plots(name):
    return lambda adata: getattr(npt.pl, name)(adata, show=False)


def tables(name):
    options = {"allow_stale": True} if name == "order_df" else {}
    return lambda adata: getattr(npt.get, name)(adata, **options)


READERS = {
    **{f"pl.{name}": plots(name) for name in PLOTS},
    **{f"get.{name}": tables(name) for name in TABLES},
    "tl.plan_loading": npt.tl.plan_loading,
}


def is_shown_as_before(reader, change):
    """Whether a change does not concern a result, which knows only its own cells."""
    name = reader.split(".")[1]
    return (change is fit and name in WITHOUT_FIT) or (change is labels and name == "dag_fit")


@pytest.mark.parametrize("reader", READERS)
def test_an_unchanged_screen_is_shown_without_a_word(shown, reader):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{NOT_OURS}")
        READERS[reader](shown)


# Each reader with one change in the core set, and with every change among the formats: all readers
# ask one function.
PAIRS = [
    pytest.param(reader, change, marks=[] if (i + j) % len(CHANGES) == 0 else [pytest.mark.formats])
    for i, reader in enumerate(READERS)
    for j, change in enumerate(CHANGES)
    if not is_shown_as_before(reader, change)
]


@pytest.mark.parametrize(("reader", "change"), PAIRS)
def test_a_changed_screen_is_noticed(shown, reader, change):
    adata = change(shown)
    if reader == "pl.dag" and change is genes:
        with pytest.raises(ValueError, match="MYC"):
            READERS[reader](adata)
        return
    # A label that is drawn may be absent: an error says so, after the warning.
    absent = pytest.raises(ValueError, match="not found")
    is_absent = reader == "pl.cpca_density" and change is labels
    with pytest.warns(UserWarning, match=NOT_OURS), absent if is_absent else nullcontext():
        READERS[reader](adata)


@pytest.mark.parametrize(
    "change",
    [counts, *(pytest.param(change, marks=pytest.mark.formats) for change in CHANGES[1:])],
)
def test_report_and_summary_have_a_banner(shown, change, tmp_path):
    assert "Warning" not in npt.summary(shown).facts
    assert 'role="alert"' not in npt.report(shown, tmp_path / "page.html").read_text()
    adata = change(shown)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{NOT_OURS}")  # the banner is enough
        words = npt.summary(adata).facts["Warning"]
        assert next(iter(npt.summary(adata).facts)) == "Warning"
        assert "do not belong to the present screen" in words
        assert "the next round" in words
        if change is genes:
            assert "not in adata.var_names: MYC" in words
            return
        page = npt.report(adata, tmp_path / "page.html").read_text()
    assert '<p class="changes" role="alert">' in page
    assert "do not belong to the present screen" in page


@pytest.mark.parametrize("change", CHANGES)
def test_an_order_for_changed_cells_is_refused(shown, change):
    order = npt.get.order_df(shown)
    adata = change(shown)
    with pytest.raises(ValueError, match=r"adata\.uns\['plan'\].*again, or pass allow_stale=True"):
        npt.get.order_df(adata)
    with pytest.warns(UserWarning, match=NOT_OURS):
        assert npt.get.order_df(adata, allow_stale=True).equals(order)


def test_a_result_without_its_fit_says_that_it_cannot_be_compared(shown):
    adata = shown
    del adata.uns["dag_blr"]
    with pytest.warns(UserWarning, match=r"its fit, adata.uns\['dag_blr'\], is no longer there"):
        npt.get.effects_df(adata)


def test_roles_declared_since_are_noticed(shown):
    adata = shown
    npt.pp.setup_screen(adata, guide_key=None)
    with pytest.warns(UserWarning, match=r"pp.setup_screen has declared guide_key ''"):
        npt.get.plan_df(adata)


def test_a_first_plan_of_controls_knows_them(small_screen):
    adata = small_screen[small_screen.obs["perturbation"] == "control"].copy()
    npt.tl.plan_cells(adata, budget=5000)
    with warnings.catch_warnings(action="error"):
        npt.pl.plan_cells(adata, show=False)
    with pytest.warns(UserWarning, match=rf"{NOT_OURS}.*values of adata.X"):
        npt.pl.plan_cells(counts(adata), show=False)


def test_the_status_of_a_campaign_notices_changed_cells(small_screen):
    known = small_screen[small_screen.obs["perturbation"].notna()].copy()
    with warnings.catch_warnings(action="ignore"):
        campaign = npt.Campaign(
            known, "MYC", learn={"method": "boss", "search_options": {"n_runs": 1}}
        )
    with warnings.catch_warnings(action="error"):
        campaign.summarize()
    assert "Warning" not in repr(campaign)
    counts(campaign.adata)
    with pytest.warns(UserWarning, match="The campaign does not belong to its cells"):
        campaign.summarize()
    assert "does not belong to its cells" in repr(campaign)


def test_the_command_refuses_an_order_of_changed_cells(shown, tmp_path):
    from nextpert.cli import main

    adata = counts(shown)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    words = ["plan", str(tmp_path / "screen.h5ad"), "--target", "MYC", "--strategy", "exploit"]
    words += ["--order", str(tmp_path / "order.csv"), "--quiet"]
    assert main(words) != 0
    assert not (tmp_path / "order.csv").exists()
    assert main([*words, "--allow-stale"]) == 0
    assert (tmp_path / "order.csv").exists()


def test_every_reader_is_tested():
    assert set(PLOTS) | OF_CELLS == set(npt.pl.__all__)
    assert importlib.import_module("nextpert.get").__all__
    assert set(TABLES) == {"diagnosis_df", "effects_df", "order_df", "plan_df", "ranking_df"}


def test_an_empty_plan_of_changed_cells_says_so(shown, described_anew):
    shown.uns["plan"]["plate"] = shown.uns["plan"]["plate"].head(0)
    described_anew(shown.uns["plan"])
    with pytest.raises(ValueError, match=r"^The plan is empty"):
        npt.pl.plan_screen(shown, show=False)
    adata = counts(shown)
    words = (
        r"uns\['plan'\] does not .* \(values of adata.X\).* tl.plan_screen again. The plan is empty"
    )
    with pytest.warns(UserWarning, match=NOT_OURS), pytest.raises(ValueError, match=words):
        npt.pl.plan_screen(adata, show=False)


def test_a_result_without_a_field_is_damaged_and_not_absent(shown):
    del shown.uns["plan"]["plate"]
    with pytest.raises(ValueError, match=r"uns\['plan'\] is damaged .*lacks plate"):
        npt.get.plan_df(shown)
    with pytest.raises(ValueError, match=r"adata\.uns has no plan .design.: run tl\.plan_screen"):
        npt.get.plan_df(shown, key="design")
