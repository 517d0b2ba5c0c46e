"""Files damaged at random: an error, or what was written to five digits; never another matrix."""

import gzip
import shutil

import numpy as np
import pytest

from nextpert.datasets import perturb_cite_seq
from nextpert.datasets._scp1064.standin import write_portal_standin

EXPRESSION = "other/RNA_expression.csv.gz"
# Not found by any reader: values exchanged between genes of a cell, names between genes.


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    standin = write_portal_standin(folder, n_cells=24, n_genes=12, rng=2, subsets=False)
    truth = perturb_cite_seq(folder, counts=True, protein=False)
    assert np.array_equal(truth.layers["counts"].toarray(), standin.counts)
    return folder, gzip.decompress((folder / EXPRESSION).read_bytes()), truth


def outcome(folder, truth, *, counts=True):
    """Return 'error' or 'same'; anything else fails the test."""
    try:
        found = perturb_cite_seq(folder, genes=list(truth.var_names), counts=counts, protein=False)
    except (ValueError, FileNotFoundError):
        return "error"
    np.testing.assert_allclose(found.X.toarray(), truth.X.toarray(), atol=1e-4)
    assert found.obs.astype(str).equals(truth.obs.astype(str))
    if counts:
        assert np.array_equal(found.layers["counts"].toarray(), truth.layers["counts"].toarray())
    return "same"


def run(tmp_path, study, damage, n, *, plain=False, file=EXPRESSION, seed=0):
    """Damage a file ``n`` times; ``damage`` takes its bytes and a generator."""
    folder, text, truth = study
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / file
    data = text if file == EXPRESSION and plain else path.read_bytes()
    if file == EXPRESSION and plain:
        path.unlink()
        path = path.with_suffix("")
    outcomes = []
    for k in range(n):
        rng = np.random.default_rng([seed, k])
        path.write_bytes(damage(data, rng))
        outcomes.append(outcome(copy, truth, counts=bool(k % 2)))
    return outcomes


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


def table(data):
    return [line.split(b",") for line in data.splitlines()]


def join(rows):
    return gzip.compress(b"\n".join(b",".join(row) for row in rows) + b"\n", 1)


def change_rows(kind):
    def damage(data, rng):
        rows = table(gzip.decompress(data))
        i, j = rng.integers(1, len(rows), 2)
        a, b = rng.integers(1, len(rows[0]), 2)
        if kind == "swap":  # two cells' values of a gene
            rows[i][a], rows[i][b] = rows[i][b], rows[i][a]
        elif kind == "swap cells":
            rows[0][a], rows[0][b] = rows[0][b], rows[0][a]
        elif kind == "swap columns":  # with their names: the same study
            for row in rows:
                row[a], row[b] = row[b], row[a]
        elif kind == "repeat":
            rows.insert(j, list(rows[i]))
        elif kind == "drop":
            del rows[i]
        elif kind == "copy":  # one row's values over another's
            rows[i][1:] = rows[j][1:]
        elif kind == "field":
            del rows[i][a]
        elif kind == "shift":
            rows[i].insert(a, rows[i].pop(b))
        elif kind == "value":
            rows[i][a] = rng.choice([b"0", b"6.5", b"8.123456", b"1e1", rows[j][b]])
        return join(rows)

    return damage


def test_gzip_truncated_anywhere(tmp_path, study):
    assert set(run(tmp_path, study, truncate, 50)) == {"error"}


def test_bits_flipped_inside_the_gzip(tmp_path, study):
    outcomes = run(tmp_path, study, flip_bit, 60)
    assert outcomes.count("error") > 50  # the header's time and flags say nothing


def test_plain_text_truncated_anywhere(tmp_path, study):
    outcomes = run(tmp_path, study, truncate, 50, plain=True)
    assert outcomes.count("error") >= 49  # all but the last line's end


def test_bytes_of_plain_text_replaced(tmp_path, study):
    outcomes = run(tmp_path, study, replace_byte, 60, plain=True)
    assert outcomes.count("error") > 30


def test_bytes_of_plain_text_removed(tmp_path, study):
    assert run(tmp_path, study, remove_bytes, 40, plain=True).count("error") > 30


@pytest.mark.parametrize(
    "kind",
    ["swap", "swap cells", "swap columns", "repeat", "drop", "copy", "field", "shift", "value"],
)
def test_rows_and_fields_changed(tmp_path, study, kind):
    outcomes = run(tmp_path, study, change_rows(kind), 8, seed=len(kind))
    if kind == "swap columns":
        assert set(outcomes) == {"same"}
    else:
        assert outcomes.count("error") >= 4


@pytest.mark.parametrize(
    "file", ["metadata/RNA_metadata.csv", "documentation/all_sgRNA_assignments.txt"]
)
def test_tables_of_cells_truncated_anywhere(tmp_path, study, file):
    assert run(tmp_path, study, truncate, 25, file=file).count("error") >= 24
