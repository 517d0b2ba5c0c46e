"""Long tables of differential expression: columns by name, and the standard errors they imply."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import nextpert as npt

NAMES, GENES = ["MYC", "JUN", "HS2"], ["MYC", "JUN", "FOS", "REL"]
LN2 = np.log(2)


def truth():
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(3, 4))
    return effects, rng.uniform(0.1, 0.3, size=(3, 4))


def long(**columns):
    """One row for each pair, in another order than the tables."""
    pairs = pd.MultiIndex.from_product([NAMES, GENES]).to_frame(index=False)
    pairs.columns = ["perturbation", "gene"]
    table = pairs.assign(**{k: np.ravel(v) if np.ndim(v) else v for k, v in columns.items()})
    return table.sample(frac=1, random_state=0)


def outputs():
    effects, se = truth()
    z, lfc = effects / se, effects / LN2
    p = 2 * norm.sf(np.abs(z))
    return {
        "deseq2": long(baseMean=9.0, log2FoldChange=lfc, lfcSE=se / LN2, stat=z, pvalue=p),
        "deseq2 by statistic": long(log2FoldChange=lfc, stat=z, pvalue=0.0),
        "edger by F": long(logFC=lfc, logCPM=5.0, F=z**2, PValue=p, FDR=1.0),
        "edger by LR": long(logFC=lfc, logCPM=5.0, LR=z**2, PValue=p),
        "sceptre": long(
            p_value=p, fold_change=np.exp(effects), se_fold_change=se * np.exp(effects)
        ).rename(columns={"gene": "response_id", "perturbation": "grna_target"}),
    }


@pytest.mark.parametrize("case", list(outputs()))
def test_outputs_are_one_table(case):
    effects, se = truth()
    table, named = outputs()[case], {}
    if case == "deseq2":
        table = table.rename(columns={"gene": "gene_id", "perturbation": "guide"})
        named = {"perturbation_key": "guide"}
    screen = npt.pp.effect_table(table, source=case.split()[0], **named, **SAFE)
    assert sorted(screen.var_names) == sorted(GENES)
    rows, columns = screen.obs["perturbation"].tolist(), screen.var_names.tolist()
    place = np.ix_([rows.index(name) for name in NAMES], [columns.index(gene) for gene in GENES])
    assert np.allclose(np.asarray(screen.X)[place], effects)
    assert np.allclose(screen.layers["se"][place], se)
    assert screen.uns["effect_table"]["source"] == case.split()[0]


def test_pairs_that_are_absent_are_missing():
    table = outputs()["deseq2"]
    kept = table[~((table["perturbation"] == "MYC") & (table["gene"] == "FOS"))].copy()
    kept.loc[(kept["perturbation"] == "JUN") & (kept["gene"] == "REL"), "lfcSE"] = np.nan
    screen = npt.pp.effect_table(kept, source="deseq2", **SAFE)
    assert screen.uns["effect_table"]["n_missing"] == 2
    assert np.isinf(screen["MYC", "FOS"].layers["se"]).all()


SAFE = {"control_se": "conservative"}


def bad(source="deseq2", **columns):
    return {"adata": outputs()[source].assign(**columns), "source": source.split()[0]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"adata": outputs()["deseq2"][:0], "source": "deseq2", **SAFE}, r"has no row, or no col"),
        ({"adata": pd.concat([outputs()["deseq2"], outputs()["deseq2"][["lfcSE"]]], axis=1),
          "source": "deseq2"}, r"Columns given more than once: lfcSE"),
        (bad(gene="MYC"), r"Perturbation and gene given more than once: .*'MYC', 'MYC'"),
        (bad(lfcSE=-1.0), r"Standard errors must be above 0"),
        (bad(lfcSE="x"), r"'lfcSE' must contain only real numbers"),
        ({**bad(), "base": "e"}, r"The output of deseq2 holds logarithms of base 2: leave base"),
        ({**bad(), "adata": long(effect=1.0).drop(columns="gene"), "source": "plain"},
         r"no column 'gene' of genes.*rename the column"),
        ({**bad(), "perturbation_key": "guide"}, r"no column 'guide' of perturbations"),
        ({**bad(), "source": "edger"}, r"output of edger has no column 'logFC' of effects"),
        ({"adata": outputs()["deseq2"]}, r"needs a table of standard errors.*deseq2, edger"),
        ({"adata": long(logFC=1.0), "source": "edger"}, r"No standard error follows from the col"),
    ],
)  # fmt: skip
def test_outputs_without_what_is_needed_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        npt.pp.effect_table(**given)


@pytest.mark.parametrize("case", ["edger by F", "deseq2 by statistic"])
def test_a_statistic_of_0_or_a_square_below_says_nothing(case):
    table = outputs()[case].sort_values(["perturbation", "gene"])
    whole = npt.pp.effect_table(table, source=case.split()[0], **SAFE)
    statistic = next(name for name in ("F", "stat") if name in table)
    table.iloc[0, table.columns.get_loc(statistic)] = -1.8e-10 if statistic == "F" else 0.0
    found = npt.pp.effect_table(table, source=case.split()[0], **SAFE)
    wanted = np.where(np.arange(12).reshape(3, 4) == 0, np.inf, whole.layers["se"][1:])
    np.testing.assert_array_equal(found.layers["se"][1:], wanted)
