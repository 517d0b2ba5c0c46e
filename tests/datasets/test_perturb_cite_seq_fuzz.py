"""Files damaged at random: an error, or what was written to five digits; never another matrix."""

import gzip
import shutil

import numpy as np
import pytest

from nextpert._adata.panel import ZHANG2023
from nextpert.datasets import perturb_cite_seq
from nextpert.datasets._perturb_cite_seq_standin import write_portal_standin

EXPRESSION = "other/RNA_expression.csv.gz"
# Not found by any reader: values exchanged between genes of a cell, names between genes.


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    standin = write_portal_standin(folder, ZHANG2023[:6], ["Control"] * 24, n_genes=12, rng=2)
    truth = perturb_cite_seq(folder, counts=True)
    assert np.array_equal(truth.layers["counts"].toarray(), standin.counts)
    return folder, truth


def run(tmp_path, study, damage, n):
    """Damage a file ``n`` times; return how often that is an error. Else the study is as it was."""
    folder, truth = study
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / EXPRESSION
    data = path.read_bytes()
    n_errors, options = 0, {"genes": list(truth.var_names), "counts": True}
    for k in range(n):
        path.write_bytes(damage(data, np.random.default_rng([n, k])))
        try:
            found = perturb_cite_seq(copy, **options)
        except (ValueError, FileNotFoundError):
            n_errors += 1
            continue
        np.testing.assert_allclose(found.X.toarray(), truth.X.toarray(), atol=1e-4)
        assert found.obs.astype(str).equals(truth.obs.astype(str))
        assert (found.layers["counts"] != truth.layers["counts"]).nnz == 0
    return n_errors


def change_rows(kind):
    def damage(data, rng):
        rows = [line.split(b",") for line in gzip.decompress(data).splitlines()]
        i, j = rng.integers(1, len(rows), 2)
        a, b = rng.integers(1, len(rows[0]), 2)
        if kind == "swap":  # two cells' values of a gene
            rows[i][a], rows[i][b] = rows[i][b], rows[i][a]
        elif kind == "swap cells":
            rows[0][a], rows[0][b] = rows[0][b], rows[0][a]
        elif kind == "swap columns":  # with their names: the same study
            for row in rows:
                row[a], row[b] = row[b], row[a]
        elif kind == "copy":  # one row's values over another's
            rows[i][1:] = rows[j][1:]
        elif kind == "shift":
            rows[i].insert(a, rows[i].pop(b))
        elif kind == "value":
            rows[i][a] = rng.choice([b"0", b"6.5", b"8.123456", b"1e1", rows[j][b]])
        return gzip.compress(b"\n".join(b",".join(row) for row in rows) + b"\n", 1)

    return damage


@pytest.mark.parametrize("kind", ["swap", "swap cells", "swap columns", "copy", "shift", "value"])
def test_rows_and_fields_changed(tmp_path, study, kind):
    n_errors = run(tmp_path, study, change_rows(kind), 16)
    assert n_errors == 0 if kind == "swap columns" else n_errors >= 4
