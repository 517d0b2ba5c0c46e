"""Damaged and unfit files: an error with the file's name and line, and nothing left behind."""

import gzip
import re
import shutil

import pytest

from nextpert.datasets import perturb_cite_seq

EXPRESSION = "other/RNA_expression.csv.gz"
METADATA = "metadata/RNA_metadata.csv"
GUIDES = "documentation/all_sgRNA_assignments.txt"


@pytest.fixture
def study(portal, tmp_path):
    return shutil.copytree(portal[0], tmp_path / "study")


def lines_of(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().split("\n")


def write(path, lines):
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def changed(file, line, change):
    """Return a function that replaces one line of a file by those that ``change`` returns."""

    def apply(folder):
        lines = lines_of(folder / file)
        found = change(lines[line - 1])
        lines[line - 1 : line] = [found] if isinstance(found, str) else found
        write(folder / file, lines)

    return apply


def field(file, line, column, text):
    """Return a function that replaces one field, without quotes, of a file."""

    def change(found):
        fields = found.split(",")
        fields[column] = text
        return ",".join(fields)

    return changed(file, line, change)


def repeated(file, line):
    return changed(file, line, lambda found: [found, found])


def shortened(file, line):
    return changed(file, line, lambda found: found.rpartition(",")[0])


def cut(file, n):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:n])


def first(file, n):
    return lambda folder: write(folder / file, lines_of(folder / file)[:n])


def rounded(match):
    return f"{float(match[0]):.2f}"


CASES = {
    "truncated": (cut(EXPRESSION, -40), r"gz', line \d+ is followed by a damaged part"),
    "too few": (shortened(EXPRESSION, 5), r"gz', line 5 holds 89 values, not"),
    "no number": (
        field(EXPRESSION, 9, 4, "NA"), r"gz', line 9 holds a value that is not a number .*NA"
    ),
    "negative": (
        field(EXPRESSION, 9, 1, "-1.5"),
        r"line 9 holds -1.5 for cell 'CELL_1', which is not between 0 and",
    ),
    "gene twice": (
        field(EXPRESSION, 9, 0, "GENE16"),
        r"gz', line \d+ begins with 'GENE16', which is empty or names",
    ),
    "cell twice": (field(EXPRESSION, 1, 7, "CELL_3"), r"gz', line 1 names cell 'CELL_3' twice"),
    "row lost": (first(EXPRESSION, -4), r"sum to [0-9.]+, not a million"),
    "no gzip": (
        lambda f: (f / EXPRESSION).write_bytes(b"GENE,CELL_1\nA,0\n"), r"followed by a damaged part"
    ),
    "empty": (first(EXPRESSION, 0), r"line 1 does not begin with GENE"),
    "other metadata": (
        lambda f: write(f / METADATA, [s.replace("CELL", "cell") for s in lines_of(f / METADATA)]),
        r"all_sgRNA_assignments.txt and RNA_metadata.csv differ in 180 cells",
    ),
    "metadata column": (field(METADATA, 1, 3, "moi"), r"RNA_metadata.csv' lacks MOI"),
    "metadata number": (field(METADATA, 8, 3, "one"), r"holds 'one' as MOI of 'CELL_6'"),
    "UMI of another": (
        field(METADATA, 8, 5, "12345.5"),
        r"RNA_expression.csv.gz', line \d+, holds [\d.]+ for a cell with 12345.5 UMI",
    ),
    "guides name": (
        changed(GUIDES, 3, lambda s: s.split(",")[0] + ",MYC"), r"holds guides that are not named"
    ),
    "guides differ": (
        changed(GUIDES, 3, lambda s: s.split(",")[0] + ',"MYC_1,MYC_2,MYC_3,B2M_1,B2M_2,B2M_3"'),
        r"1 cells, such as 'CELL_2', differ from all_sgRNA_assignments.txt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damage_is_named(case, study):
    damage, expected = CASES[case]
    damage(study)
    with pytest.raises(ValueError, match=expected):
        perturb_cite_seq(study)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"condition": "IFNg"}, "No cells of condition IFNg. Close matches: IFNγ"),
        ({"genes": ["GENE16", "GENE_17"]}, "lacks the genes GENE_17. Close matches: GENE17"),
        ({"genes": ["GENE16", "GENE16"]}, "genes must name genes, each once"),
        ({"genes": []}, "genes must name genes"),
        ({"subset": "1b"}, "subset must name some of 1a, 1b_alpha"),
        ({"subset": "4", "condition": "Control"}, "No cell has the condition"),
    ],
)
def test_what_is_not_there_is_named(options, expected, portal):
    with pytest.raises(ValueError, match=re.escape(expected)):
        perturb_cite_seq(portal[0], **options)


@pytest.mark.parametrize("file", [METADATA, GUIDES])
def test_absent_files(file, study):
    (study / file).unlink()
    with pytest.raises(FileNotFoundError, match=file.rpartition("/")[2]):
        perturb_cite_seq(study)


def test_absent_subset(study):
    (study / EXPRESSION).unlink()
    (study / "expression/RNA_expression_subset2.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 'RNA_expression_subset2.csv.gz'"):
        perturb_cite_seq(study)
    assert perturb_cite_seq(study, subset=["1a", "3"]).n_obs == 30
    shutil.copy(
        study / "expression/RNA_expression_subset1a.csv.gz",
        study / "expression/RNA_expression_subset2.csv.gz",
    )
    with pytest.raises(ValueError, match="The expression holds cells twice, such as 'CELL_1'"):
        perturb_cite_seq(study)


def test_verify_false_loads_what_looks_wrong(study):
    field(EXPRESSION, 9, 1, "8.255")(study)
    with pytest.raises(ValueError, match=r"line 9, holds 8.255 .*`verify=False`"):
        perturb_cite_seq(study)
    assert perturb_cite_seq(study, verify=False).X[0, 7] == pytest.approx(8.255)
    with pytest.raises(ValueError, match=r"line 9, holds 8.255 for a cell with .* UMI"):
        perturb_cite_seq(study, verify=False, counts=True)
