"""Damaged and unfit files: an error with the file's name and line, and nothing left behind."""

import gzip
import re
import shutil

import numpy as np
import pytest

from nextpert.datasets import perturb_cite_seq

EXPRESSION = "other/RNA_expression.csv.gz"
METADATA = "metadata/RNA_metadata.csv"
GUIDES = "documentation/all_sgRNA_assignments.txt"
PROTEIN = "other/raw_CITE_expression.csv.gz"
UMAP = "cluster/5fb2a1c0/RNA_UMAP_cluster.csv"


def read(folder, **options):
    return perturb_cite_seq(folder, **options)


@pytest.fixture
def study(portal, tmp_path):
    return shutil.copytree(portal[0], tmp_path / "study")


def lines_of(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().split("\n")


def write(path, lines):
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def change_field(line, column, text):
    fields = line.split(",")
    fields[column] = text
    return ",".join(fields)


def changed(file, line, change):
    """Return a function that changes one line of a file."""

    def apply(folder):
        lines = lines_of(folder / file)
        lines[line - 1] = change(lines[line - 1])
        write(folder / file, lines)

    return apply


def repeated(file, line):
    def apply(folder):
        lines = lines_of(folder / file)
        write(folder / file, [*lines[:line], lines[line - 1], *lines[line:]])

    return apply


def cut(file, n):
    def apply(folder):
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[:n])

    return apply


def rounded(match):
    return f"{float(match[0]):.2f}"


CASES = {
    "truncated": (cut(EXPRESSION, -40), r"gz', line \d+ is followed by a trunc"),
    "too few": (
        changed(EXPRESSION, 5, lambda s: s.rpartition(",")[0]), r"gz', line 5 holds 89 values, not"
    ),
    "too many": (changed(EXPRESSION, 7, lambda s: s + ",0"), r"gz', line 7 holds 91 values, not"),
    "empty line": (changed(EXPRESSION, 7, lambda s: ""), r"gz', line 7 holds 0 values"),
    "no number": (
        changed(EXPRESSION, 9, lambda s: change_field(s, 4, "NA")),
        r"gz', line 9 holds what is no number .*NA",
    ),
    "no zero": (changed(EXPRESSION, 9, lambda s: change_field(s, 4, "0x0")), r"line 9 .*no number"),
    "nan": (changed(EXPRESSION, 9, lambda s: change_field(s, 4, "nan")), r"line 9 holds nan"),
    "inf": (changed(EXPRESSION, 9, lambda s: change_field(s, 4, "1e999")), r"line 9 holds inf"),
    "nothing": (
        changed(EXPRESSION, 9, lambda s: change_field(s, 90, "")), r"line 9 holds what is no number"
    ),
    "negative": (
        changed(EXPRESSION, 9, lambda s: change_field(s, 1, "-1.5")),
        r"line 9 holds -1.5 for cell 'CELL_1', which is not between 0 and",
    ),
    "too large": (
        changed(EXPRESSION, 9, lambda s: change_field(s, 1, "14")), r"line 9 holds 14 for"
    ),
    "digits lost": (  # of the very first value: within the rounding of those left
        changed(EXPRESSION, 2, lambda s: re.sub(r"\d+\.\d{3,}", rounded, s, count=1)),
        r"1 of 90 cells do not sum up|with \d+ UMI",
    ),
    "gene twice": (
        changed(EXPRESSION, 9, lambda s: change_field(s, 0, "GENE16")),
        r"gz', line \d+ begins with 'GENE16', no name of its own",
    ),
    "row twice": (repeated(EXPRESSION, 11), r"gz', line 12 begins with .*, no name of its own"),
    "cell twice": (
        changed(EXPRESSION, 1, lambda s: change_field(s, 7, "CELL_3")),
        r"gz', line 1 names cell 'CELL_3' twice",
    ),
    "unknown cell": (
        changed(EXPRESSION, 1, lambda s: change_field(s, 7, "CELL_700")),
        r"The expression and RNA_metadata.csv differ in 2 cells, such as 'CELL_700'",
    ),
    "cell lost": (
        lambda folder: write(
            folder / EXPRESSION,
            [s.rpartition(",")[0] for s in lines_of(folder / EXPRESSION)[:-1]] + [""],
        ),
        r"The expression and RNA_metadata.csv differ in 1 cells, such as 'CELL_90'",
    ),
    "row lost": (
        lambda folder: write(folder / EXPRESSION, [*lines_of(folder / EXPRESSION)[:-4], ""]),
        r"do not sum up to a million .* genes missing",
    ),
    "no name": (changed(EXPRESSION, 4, lambda s: change_field(s, 0, "")), r"line 4 begins with ''"),
    "no gzip": (
        lambda f: (f / EXPRESSION).write_bytes(b"GENE,CELL_1\nA,0\n"), r"is followed by a trunc"
    ),
    "header only": (lambda f: write(f / EXPRESSION, lines_of(f / EXPRESSION)[:1]), r"the only one"),
    "empty": (lambda folder: write(folder / EXPRESSION, [""]), r"line 1 does not begin with GENE"),
    "other metadata": (
        lambda f: write(f / METADATA, [s.replace("CELL", "cell") for s in lines_of(f / METADATA)]),
        r"all_sgRNA_assignments.txt and RNA_metadata.csv differ in 180 cells",
    ),
    "metadata column": (
        changed(METADATA, 1, lambda s: s.replace("MOI", "moi")), r"RNA_metadata.csv' lacks MOI"
    ),
    "metadata short": (
        changed(METADATA, 6, lambda s: s.rpartition(",")[0]), r"'' as UMI_count of 'CELL_4'"
    ),
    "metadata twice": (repeated(METADATA, 8), r"csv' names 'CELL_6' in several"),
    "metadata number": (
        changed(METADATA, 8, lambda s: change_field(s, 3, "one")), r"holds 'one' as MOI of 'CELL_6'"
    ),
    "UMI of none": (
        changed(METADATA, 8, lambda s: change_field(s, 5, "0")), r"'0' as UMI_count of 'CELL_6'"
    ),
    "UMI of another": (
        changed(METADATA, 8, lambda s: change_field(s, 5, "12345.5")),
        r"RNA_expression.csv.gz', line \d+, holds [\d.]+ for a cell with 12345.5 UMI",
    ),
    "guides quote": (
        lambda f: (f / GUIDES).write_text((f / GUIDES).read_text().rstrip()[:-9] + ',"NO_SITE_1'),
        r"all_sgRNA_assignments.txt'",
    ),
    "guides name": (
        changed(GUIDES, 3, lambda s: s.split(",")[0] + ",MYC"), r"holds guides that are not named"
    ),
    "guides differ": (
        changed(GUIDES, 3, lambda s: s.split(",")[0] + ',"MYC_1,MYC_2,MYC_3,B2M_1,B2M_2,B2M_3"'),
        r"differ from the guides in all_sgRNA_assignments.txt for 1 cells, such as 'CELL_2'",
    ),
    "protein cell": (
        changed(PROTEIN, 1, lambda s: change_field(s, 3, "CELL_999")), r"differ in 1 cells"
    ),
    "protein count": (
        changed(PROTEIN, 5, lambda s: change_field(s, 3, "1.5")), r"line 5 holds what is no whole"
    ),
    "protein short": (
        changed(PROTEIN, 5, lambda s: s.rpartition(",")[0]), r"gz', line 5 holds 86 values"
    ),
    "protein header": (
        changed(PROTEIN, 1, lambda s: change_field(s, 2, s.split(",")[1])),
        r"gz', line 1 names cell 'CELL_\d+' twice",
    ),
    "protein twice": (repeated(PROTEIN, 5), r"gz', line 6 begins with '.*', no name of its own"),
    "protein empty": (
        lambda f: write(f / PROTEIN, lines_of(f / PROTEIN)[:1]), r"is the only one"
    ),
    "umap": (changed(UMAP, 7, lambda s: change_field(s, 2, "x")), r"csv' holds 'x' as Y of"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damage_is_named_and_nothing_left(case, study, tmp_path):
    damage, expected = CASES[case]
    damage(study)
    for backed in (None, tmp_path / "out" / "out.h5ad"):
        with pytest.raises(ValueError, match=expected):
            read(study, backed=backed)
    assert not list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else True


def test_an_existing_file_outlives_a_failure(study, tmp_path):
    target = tmp_path / "out.h5ad"
    read(study, backed=target).file.close()
    before = target.read_bytes()
    cut(EXPRESSION, -40)(study)
    with pytest.raises(ValueError, match="truncated"):
        read(study, backed=target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["out.h5ad"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"condition": "IFNg"}, "No cells of condition IFNg. Close matches: IFNγ"),
        ({"genes": ["GENE16", "GENE_17"]}, "no such genes: GENE_17. Close matches: GENE17"),
        ({"genes": ["GENE16", "GENE16"]}, "genes must name some genes, each once"),
        ({"genes": []}, "genes must name some genes"),
        ({"subset": "1b"}, "subset must name some of 1a, 1b_alpha"),
        ({"subset": "4", "condition": "Control"}, "No cell of RNA_metadata.csv is of condition"),
        (
            {"protein": "raw"},
            "protein must be True, False, 'clr', 'counts' or 'study'",
        ),
    ],
)
def test_what_is_not_there_is_named(options, expected, portal):
    with pytest.raises(ValueError, match=re.escape(expected)):
        read(portal[0], **options)


def test_one_gene_as_text(portal):
    with pytest.raises(TypeError, match=re.escape("use ['MYC']")):
        read(portal[0], genes="MYC")


@pytest.mark.parametrize("file", [METADATA, GUIDES, PROTEIN])
def test_absent_files(file, study):
    (study / file).unlink()
    if file == PROTEIN:  # the study's own scale stands in
        assert read(study).uns["perturb_cite_seq"]["protein"] == "study"
        (study / "documentation/Protein_expression.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=file.rpartition("/")[2]):
        read(study)


def test_absent_subset(study):
    (study / EXPRESSION).unlink()
    (study / "expression/RNA_expression_subset2.csv.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 'RNA_expression_subset2.csv' and"):
        read(study)
    assert read(study, subset=["1a", "3"]).n_obs == 30
    shutil.copy(
        study / "expression/RNA_expression_subset1a.csv.gz",
        study / "expression/RNA_expression_subset2.csv.gz",
    )
    with pytest.raises(ValueError, match="The expression holds cells twice, such as 'CELL_1'"):
        read(study)


def test_counts_that_printed_digits_cannot_give(portal, study):
    _, standin = portal
    values = np.log1p(standin.counts * 1e6 / standin.umi_count[:, None]).T
    rows = [["GENE", *standin.cells]]
    rows += [[n, *(f"{v:.1f}" for v in r)] for n, r in zip(standin.genes, values, strict=True)]
    write(study / EXPRESSION, [",".join(row) for row in rows] + [""])
    with pytest.raises(ValueError, match=r"line \d+, holds .*`counts=False`"):
        read(study, counts=True)
    with pytest.raises(ValueError, match="`verify=False`"):
        read(study)
    with pytest.warns(UserWarning, match="do not sum up to a million"):
        assert read(study, verify=False).shape == (90, 30)


def test_verify_false_loads_what_looks_wrong(study):
    changed(EXPRESSION, 9, lambda s: change_field(s, 1, "8.25"))(study)
    with pytest.raises(ValueError, match=r"line 9, holds 8.25 .*`verify=False`"):
        read(study)
    with pytest.warns(UserWarning, match="1 of 90 cells do not sum up to a million"):
        found = read(study, verify=False)
    assert found.X[0, 7] == 8.25
    with pytest.raises(ValueError, match=r"line 9, holds 8.25 for a cell with .* UMI"):
        read(study, verify=False, counts=True)
