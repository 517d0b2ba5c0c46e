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
    return folder, gzip.decompress((folder / EXPRESSION).read_bytes()), truth


def run(tmp_path, study, damage, n, *, plain=False, file=EXPRESSION):
    """Damage a file ``n`` times; return how often that is an error. Else the study is as it was."""
    folder, text, truth = study
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / file
    data = path.read_bytes()
    if plain:
        path.unlink()
        path, data = path.with_suffix(""), text
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


def truncate(data, rng):
    return data[: rng.integers(0, len(data))]


def flip_bit(data, rng):
    changed = bytearray(data)
    changed[rng.integers(0, len(data))] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def replace_byte(data, rng):
    changed = bytearray(data)
    choice = rng.choice(list(b'0123456789.,-eE+\n\r" aN\0\xff'))
    changed[rng.integers(0, len(data))] = choice
    return bytes(changed)


def remove_bytes(data, rng):
    start, n = rng.integers(0, len(data)), rng.integers(1, 40)
    return data[:start] + data[start + n :]


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


@pytest.mark.parametrize(
    ("damage", "plain", "n", "least"),
    [
        (truncate, False, 40, 40),
        (flip_bit, False, 50, 42),  # time and flags in the head of a gzip say nothing
        (truncate, True, 40, 39),  # all but the last line's end
        (replace_byte, True, 50, 25),
        (remove_bytes, True, 30, 23),
    ],
)
def test_bytes_changed(tmp_path, study, damage, plain, n, least):
    assert run(tmp_path, study, damage, n, plain=plain) >= least


@pytest.mark.parametrize("kind", ["swap", "swap cells", "swap columns", "copy", "shift", "value"])
def test_rows_and_fields_changed(tmp_path, study, kind):
    n_errors = run(tmp_path, study, change_rows(kind), 16)
    assert n_errors == 0 if kind == "swap columns" else n_errors >= 4


@pytest.mark.parametrize(
    "file", ["metadata/RNA_metadata.csv", "documentation/all_sgRNA_assignments.txt"]
)
def test_tables_of_cells_truncated_anywhere(tmp_path, study, file):
    assert run(tmp_path, study, truncate, 20, file=file) >= 19
