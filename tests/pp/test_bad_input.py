"""Bad input: an error that names the thing and the remedy, and an ``adata`` left as it was."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings

CASES: dict[str, tuple] = {}


def same(adata):
    return adata


def study(**options):
    flat = in_mappings(npt.pp.perturb_cite_seq, options)
    return lambda adata: npt.pp.perturb_cite_seq(adata, **flat)


def screen(*labels, **options):
    flat = in_mappings(npt.pp.perturbation_screen, options)
    return lambda adata: npt.pp.perturbation_screen(adata, *labels, **flat)


def assign(guides="guides", **options):
    return lambda adata: npt.pp.assign_guides(adata, guides=guides, **options)


def labelled(adata):
    adata.obs["perturbation"] = np.where(adata.obs["guides"] == "", "control", "MYC")
    return adata


def with_value(value):
    def change(adata):
        adata.X = adata.X.toarray()
        adata.X[::2, list(adata.var_names).index("MYC")] = value
        return labelled(adata)

    return change


def with_letters(adata):
    adata.obs["d"] = "x"
    return adata


def with_table(**columns):
    def change(adata):
        adata.uns["guides"] = pd.DataFrame(columns, index=["MYC_1", "MYC_2"])
        return adata

    return change


def roots(adata):
    """Values that are neither counts nor ln(1 + TPM), and counts of every cell."""
    adata.obs["UMI_count"] = 1000.0
    adata.X = np.sqrt(adata.X)
    return labelled(adata)


def guide_counts(change, **options):
    """Call with counts of two guides, changed."""

    def call(adata):
        table = pd.DataFrame(7.0, adata.obs_names, ["MYC_1", "MYC_2"])
        npt.pp.assign_guides(adata, guides=change(table), **options)

    return call


def case(name, prepare, call, *words, error=ValueError):
    CASES[name] = (prepare, call, error, words)


case("condition", same, study(condition="Contrl"), "Contrl", "Close matches: Control")
case("condition column", same, study(condition_key="cond"), "'cond'", "condition_key")
case("guides column", same, study(guides_key="guide"), "'guide'", "guides_key", "assign_guides")
case("unknown controls", same, study(controls="none"), "'no_guide', 'control_guide', 'both'")
case("unknown preset", same, study(preset="zhang"), "'zhang'", "zhang2023")
case("unknown combinations", same, study(combinations="dropp"), "dropp", "Close matches: drop")
case("unknown outside", same, study(outside="x"), "outside", "'drop' or 'keep'")
case("unknown normalise", same, study(normalise="log"), "normalise", "log_tpm")
case("no guides allowed", same, study(max_guides=0), "max_guides")
case("sum of 0", same, study(target_sum=0), "target_sum", "median")
case("depth below 0", same, study(min_depth=-1), "min_depth")
case("share above 1", same, study(min_seen=10), "min_seen", "between 0 and 1")
case("no gene seen", same, study(min_seen=1.0), "No gene", "min_seen", "panel")
case("panel of a word", same, study(panel="zhang"), "'zhang'", "'zhang2023'")
case("absent gene", same, study(panel=["MYC", "STAT2"]), "STAT2", "Close matches: STAT1")
case("panel absent", same, study(panel="zhang2023"), "B2M", "var_names")
case("gene twice", same, study(panel=["MYC", "MYC"]), "more than once: MYC")
case("two names of a gene", same, study(panel=["NUP50-AS", "NUP50-AS1"]), "once: NUP50-AS1")
case("alias to nowhere", same, study(aliases={"HLA-H": "HLAH"}), "HLAH", "aliases")
case("aliases a list", same, study(aliases=["HLA-H"]), "mapping", error=TypeError)
case("no controls left", same, study(min_depth=1e9), "No control cells", "depth")
case("neither counts nor TPM", roots, study(), "ln(1 + TPM)", "'normalise': 'none'")
case("below 0", with_value(-1.5), study(panel=["MYC"]), "ln(1 + TPM)", "below 0")
case("NaN", with_value(np.nan), study(panel=["MYC"]), "MYC", "NaN")
case("no counts", roots, study(normalise="counts", panel=["MYC"]), "not counts", "layer")
case("depth of letters", with_letters, study(depth_key="d"), "'d'", "total counts")
case("depth column", same, study(depth_key="UMI"), "'UMI'", "depth_key")
case("guides without a table", with_table(target="MYC"), study(), "'target' and 'kind'")
case("unknown guide", with_table(target="MYC", kind="targeting"), study(), "CDK4_1", "table")
case("slash in a key", same, study(key_added="a/b"), "slash")

case("no control", labelled, screen(control="NT"), "'NT'", "control", "MYC")
case("one of two controls", labelled, screen(control=["control", "NT"]), "'NT'")
case("labels column", same, screen(), "'perturbation'", "guides")
case("no separator", labelled, screen(separator=""), "separator")
case("log of counts only", labelled, screen(normalise="log_tpm"), "'auto', 'counts' or 'none'")
case("depth unknown", roots, screen(min_depth=9), "depth_key", "min_depth")
as_it_is = screen(normalise="none", panel=["MYC"], check_scale=False)
case("infinite", with_value(np.inf), as_it_is, "MYC", "infinite")

case("no such guides", same, assign("guide"), "'guide'", "Close matches: guides")
case("guides of no kind", same, assign(3), "is 3", "DataFrame", error=TypeError)
case("threshold of 0", same, guide_counts(lambda t: t, threshold=0), "threshold", "above 0")
case("multiple", same, assign(multiple="first"), "multiple", "'combine' or 'multi'")
case("guide without a target", same, assign(target_of={"MYC_1": "MYC"}), "CDK4_1", "target_of")
case("unknown control guide", same, assign(control_guides=["NOSITE"]), "NOSITE", "NO_SITE")
case("controls a string", same, assign(control_guides="NO_SITE"), "['NO_SITE']", error=TypeError)
case("key of another column", same, assign(key_added="n_guides"), "n_guides")
case("negative", same, guide_counts(lambda t: -t), "negative")
case("NaN counts", same, guide_counts(lambda t: t * np.nan), "NaN")
case("cells absent", same, guide_counts(lambda t: t.iloc[3:]), "lacks 3 of", "CELL_0")
case("cells twice", same, guide_counts(lambda t: pd.concat([t, t])), "cells twice", "CELL_0")
case("guides twice", same, guide_counts(lambda t: t.iloc[:, [0, 0]]), "guides twice: MYC_1")


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, small_study, assert_refused):
    prepare, call, error, words = CASES[case]
    assert_refused(prepare(small_study), call, error, words)


@pytest.mark.parametrize("call", [study(condition="x"), screen(), assign("x")])
def test_a_view_stays_a_view(call, small_study):
    view = small_study[:50]
    with pytest.raises(ValueError):
        call(view)
    assert view.is_view


def test_a_warning_taken_for_an_error_changes_nothing(small_study, assert_same_adata):
    before = small_study.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="HLA-H"):
            npt.pp.perturb_cite_seq(small_study)
    assert_same_adata(small_study, before)


def test_empty_matrices_are_named():
    obs = pd.DataFrame({"guides": ["NO_SITE_1", "MYC_1"], "condition": "Control"}, ["a", "b"])
    with pytest.raises(ValueError, match=r"adata\.X is empty"):
        npt.pp.perturb_cite_seq(ad.AnnData(obs=obs, var=pd.DataFrame(index=["MYC"])))
