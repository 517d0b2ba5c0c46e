"""The made-up study that can be written by anybody: read as the real one is, its truth known."""

import numpy as np
import pytest

from nextpert.datasets import perturb_cite_seq, perturb_cite_seq_standin


def test_it_is_read_as_the_study_is_and_knockouts_do_what_the_truth_says(tmp_path):
    truth = perturb_cite_seq_standin(tmp_path, n_cells=1400, n_genes=60, rng=1)
    adata = perturb_cite_seq(tmp_path)
    assert adata.shape == (1400, 60)
    assert adata.obs["condition"].value_counts().to_dict() == {
        "Control": 1200, "IFNγ": 100, "Co-culture": 100
    }  # fmt: skip
    assert list(truth.index) == list(truth.columns)
    assert {"MYC", "JAK2"} <= set(truth.index) <= set(adata.var_names)
    # Rows are parents: ordered causally the table is triangular, and it is not the transpose.
    order = np.argsort([len(ancestors(truth, gene)) for gene in truth], kind="stable")
    sorted_truth = truth.to_numpy()[np.ix_(order, order)]
    assert not np.tril(sorted_truth).any()
    assert np.triu(sorted_truth).any()
    gene = truth.ne(0).sum(axis=1).idxmax()
    has = adata.obs["perturbation"].astype(str) == gene
    x = adata[:, gene].X.toarray().ravel()
    assert x[has].mean() < 0.5 * x[~has].mean()


def ancestors(truth, gene):
    parents = truth.index[truth[gene] != 0]
    return set(parents).union(*(ancestors(truth, parent) for parent in parents))


@pytest.mark.parametrize(("name", "least"), [("n_cells", 140), ("n_genes", 39)])
def test_too_few(name, least, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must be .*{least}"):
        perturb_cite_seq_standin(tmp_path / "made", **{name: least - 1})
    assert not (tmp_path / "made").exists()
