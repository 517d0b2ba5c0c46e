"""Bad input: an error that names the thing and the remedy, and an ``adata`` left as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt


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


CASES = {
    "condition": (same, study(condition="Contrl"), "Contrl", "Close matches: Control"),
    "condition column": (without("condition"), study(), "'condition'"),
    "absent gene": (same, study(panel=["MYC", "STAT2"]), "STAT2", "Close matches: STAT1"),
    "panel absent": (same, study(panel="zhang2023"), "B2M", "var_names"),
    "neither counts nor TPM": (roots, study(), "ln(1 + TPM)", "perturbation_screen"),
    "below 0": (with_value(-1.5), study(panel=["MYC"]), "ln(1 + TPM)", "below 0"),
    "guides without a table": (with_table(target="MYC"), study(), "'target' and 'kind'"),
    "unknown guide": (with_table(target="MYC", kind="targeting"), study(), "CDK4_1", "table"),
    "labels column": (same, screen(), "'perturbation'", "guides"),
    "depth column": (labelled, screen(depth_key="UMI"), "'UMI'", "depth_key"),
    "guide without a target": (
        same,
        assign(targets={"MYC_1": None}),
        "Guides without a target: MYC_1",
        "targets",
    ),
    "unknown control guide": (same, assign(control_guides=["NOSITE"]), "NOSITE", "NO_SITE"),
    "key of another column": (same, assign(key_added="n_guides"), "n_guides"),
    "negative": (same, guide_counts(lambda t: -t), "negative"),
    "cells absent": (same, guide_counts(lambda t: t.iloc[3:]), "lacks 3 of", "CELL_0"),
    "cells twice": (same, guide_counts(lambda t: pd.concat([t, t])), "cells twice", "CELL_0"),
    "guides twice": (same, guide_counts(lambda t: t.iloc[:, [0, 0]]), "guides twice: MYC_1"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, small_study, assert_refused):
    prepare, call, *words = CASES[case]
    assert_refused(call, prepare(small_study), words, ValueError)
