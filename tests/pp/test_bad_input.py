"""Bad input: an error that names the thing and the remedy, and an ``adata`` left as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt

CASES: dict[str, tuple] = {}


def same(adata):
    return adata


def study(**options):
    return lambda adata: npt.pp.perturb_cite_seq(adata, **options)


def screen(*labels, **options):
    return lambda adata: npt.pp.perturbation_screen(adata, *labels, **options)


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
    return labelled(adata)


def without(column):
    def change(adata):
        del adata.obs[column]
        return adata

    return change


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
case("condition column", without("condition"), study(), "'condition'")
case("absent gene", same, study(panel=["MYC", "STAT2"]), "STAT2", "Close matches: STAT1")
case("panel absent", same, study(panel="zhang2023"), "B2M", "var_names")
case("neither counts nor TPM", roots, study(), "ln(1 + TPM)", "perturbation_screen")
case("below 0", with_value(-1.5), study(panel=["MYC"]), "ln(1 + TPM)", "below 0")
case("guides without a table", with_table(target="MYC"), study(), "'target' and 'kind'")
case("unknown guide", with_table(target="MYC", kind="targeting"), study(), "CDK4_1", "table")

case("labels column", same, screen(), "'perturbation'", "guides")
case("depth column", labelled, screen(depth_key="UMI"), "'UMI'", "depth_key")

case(
    "guide without a target",
    same,
    assign(targets={"MYC_1": None}),
    "Guides without a target: MYC_1",
    "targets",
)
case("unknown control guide", same, assign(control_guides=["NOSITE"]), "NOSITE", "NO_SITE")
case("key of another column", same, assign(key_added="n_guides"), "n_guides")
case("negative", same, guide_counts(lambda t: -t), "negative")
case("cells absent", same, guide_counts(lambda t: t.iloc[3:]), "lacks 3 of", "CELL_0")
case("cells twice", same, guide_counts(lambda t: pd.concat([t, t])), "cells twice", "CELL_0")
case("guides twice", same, guide_counts(lambda t: t.iloc[:, [0, 0]]), "guides twice: MYC_1")


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, small_study, assert_refused):
    prepare, call, error, words = CASES[case]
    assert_refused(prepare(small_study), call, error, words)
