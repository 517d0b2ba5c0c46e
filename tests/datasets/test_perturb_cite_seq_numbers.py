"""The reader gives what Python's float gives, to the last bit."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from tqdm import tqdm

from nextpert.datasets._scp1064.expression import ExpressionFile


def parse(path, texts, n_fields=50):
    """Parse numbers as a table, as they stand; return them in order."""
    texts = [*texts, *(["0"] * (-len(texts) % n_fields))]
    rows = [texts[i : i + n_fields] for i in range(0, len(texts), n_fields)]
    header = ",".join(["GENE", *(f"C{j}" for j in range(n_fields))])
    lines = [header, *(f"G{i}," + ",".join(row) for i, row in enumerate(rows))]
    path.write_text("\n".join(lines))
    found = np.zeros(len(texts))
    lines = ExpressionFile(path).lines(tqdm(disable=True), limit=np.inf)
    for n, (_, fields, values, _) in enumerate(lines):
        found[n * n_fields + fields] = values
    assert n + 1 == len(rows)
    return found, texts


def drawn_numbers(rng):
    """Numbers as programs print them, and harder ones."""
    values = rng.uniform(0, 14, 4000)
    for digits in (1, 3, 5, 7, 9, 12, 15, 16, 17, 18, 19, 20, 25, 40):
        yield from (f"{v:.{digits}g}" for v in values[:600])
        yield from (f"{v:.{digits}f}" for v in values[:200])
        yield from (f"{v:.{digits}e}" for v in values[:200])
    yield from map(repr, values.tolist())
    yield from map(repr, rng.integers(1, 2**63, 300).tolist())
    yield from map(str, values.astype(np.float32))
    yield from (repr(v) for v in (10 ** rng.uniform(-300, 300, 300)).tolist())
    # Halfway between two float64, and next to it: the hardest to round.
    for value in values[:300]:
        low, high = np.float64(value), np.nextafter(value, 20)
        exact = f"{(int(low * 2**52) + int(high * 2**52)) * 5**53:d}"
        digits = exact.rjust(54, "0")
        yield f"{digits[:-53]}.{digits[-53:]}"
        yield f"{digits[:-53]}.{digits[-53:]}1"
        yield f"{digits[:-53]}.{digits[-53:-37]}"
    yield from ("0", "0.0", "0.000", "00", "0e5", "0.5", ".5", "5.", "5.e0", "1E+1", "1e-1", "007")
    yield from ("0.1e1", "9007199254740993", "9007199254740993.0", "0.000000000000000000000000001")
    yield from ("1.7976931348623157e308", "5e-324", "2.5e-324", "1" + "0" * 30, "0" * 25 + "3")


def test_numbers_are_those_of_python(tmp_path):
    texts = list(drawn_numbers(np.random.default_rng(3)))
    found, texts = parse(tmp_path / "t.csv", texts)
    expected = np.array([float(text) for text in texts])
    assert np.array_equal(found, expected)


def test_runs_of_zeros_of_any_length(tmp_path):
    rng = np.random.default_rng(4)
    for zero in ("0", "0.0", "0.00"):
        texts = []
        for n in rng.integers(0, 21, 400):
            texts += [zero] * n + [rng.choice(["1", "0.5", "10.25", "0.0625", "0", "0.0"])]
        found, texts = parse(tmp_path / "t.csv", texts, n_fields=37)
        assert np.array_equal(found, [float(text) for text in texts])


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "+1", "-1", "-0", "1..2", "1.2.3", "e5", "1e", "1e+", ".", "1_0", "0x1", "NA",
     "nan", "inf", "1,5e", '"1"', "1e5e5", "1e1000000000", "١", "1\x00", "0;0", "1'0", "1e999",
     "." * 5, "9" * 400],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 24, 49])
def test_what_is_no_number_is_an_error(tmp_path, text, place):
    texts = ["0"] * 50
    texts[place] = text
    with pytest.raises(ValueError, match=r"'t.csv', line 2 holds"):
        parse(tmp_path / "t.csv", texts)


def test_a_table_wider_than_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("nextpert.datasets._scp1064.expression._READ", 512)
    rng = np.random.default_rng(6)
    texts = [f"{v:.15g}" if v > 10 else "0" for v in rng.uniform(0, 13, 40_000).tolist()]
    found, texts = parse(tmp_path / "t.csv", texts, n_fields=1000)
    assert np.array_equal(found, [float(text) for text in texts])


def test_a_file_without_line_ends_is_no_table(tmp_path, monkeypatch):
    monkeypatch.setattr("nextpert.datasets._scp1064.expression._READ", 512)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"GENE,A\n" + b"0," * 100_000))
    with pytest.raises(ValueError, match="line 2 is far longer"):
        list(ExpressionFile(path).lines(tqdm(disable=True)))
