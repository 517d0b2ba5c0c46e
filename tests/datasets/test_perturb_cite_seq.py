"""What perturb_cite_seq makes of the portal's files."""

import gzip
import shutil

import numpy as np
import pandas as pd
import pytest

from nextpert.datasets import perturb_cite_seq


def expected_values(standin):
    return np.log1p(standin.counts * 1e6 / standin.umi_count[:, None])


def label(guides):
    """Name a perturbation anew, from the rules in words."""
    targets = {g[: g.rindex("_")] for g in guides} - {"NO_SITE", "ONE_NON-GENE_SITE"}
    if targets:
        return "+".join(sorted(targets))
    return "control_guide" if guides else "no_guide"


@pytest.fixture(scope="module")
def loaded(portal):
    folder, _ = portal
    return perturb_cite_seq(folder, counts=True)


def test_values_and_counts_are_those_written(portal, loaded):
    _, standin = portal
    assert loaded.obs_names.tolist() == standin.cells
    assert loaded.var_names.tolist() == standin.genes
    assert loaded.X.format == "csr"
    assert loaded.X.dtype == np.float32
    assert loaded.X.has_canonical_format
    written = [[float(f"{v:.8g}") for v in row] for row in expected_values(standin)]
    assert np.array_equal(loaded.X.toarray(), np.array(written).astype(np.float32))
    counts = loaded.layers["counts"]
    assert counts.dtype == np.int32
    assert np.array_equal(counts.toarray(), standin.counts)


def test_cells_bear_what_the_tables_say(portal, loaded):
    _, standin = portal
    obs = loaded.obs
    assert obs["condition"].tolist() == standin.conditions
    assert obs["condition"].cat.categories.tolist() == ["Control", "IFNγ", "Co-culture"]
    assert obs["guides"].tolist() == [",".join(some) for some in standin.guides]
    assert obs["perturbation"].tolist() == [label(some) for some in standin.guides]
    assert {"no_guide", "control_guide"} <= set(obs["perturbation"])
    assert obs["n_guides"].tolist() == obs["MOI"].tolist() == [len(g) for g in standin.guides]
    assert obs["n_targets"].tolist() == [
        0 if p in ("no_guide", "control_guide") else p.count("+") + 1 for p in obs["perturbation"]
    ]
    assert obs["sgRNA"].tolist() == [g[0] if len(g) == 1 else "" for g in standin.guides]
    assert np.array_equal(obs["UMI_count"], standin.umi_count)
    guides = loaded.uns["guides"]
    assert sorted(guides.index) == sorted({g for some in standin.guides for g in some})
    assert (guides["target"] == "").equals(guides["kind"] != "targeting")
    site = guides.index.str.startswith("NO_SITE_")
    assert set(guides.loc[site, "kind"]) == {"no_site"}
    dashed = [name for name in guides.index if name.startswith("HLA-")]
    assert dashed
    assert all(guides.loc[n, "target"] == n[:-2] for n in dashed)


@pytest.mark.parametrize("subset", [None, ["4", "1a", "3", "1b_beta", "2", "1b_alpha"]])
def test_six_files_make_the_same_as_one(portal, loaded, subset, tmp_path, assert_same_adata):
    folder, _ = portal
    copy = shutil.copytree(folder, tmp_path / "six")
    (copy / "other/RNA_expression.csv.gz").unlink()
    found = perturb_cite_seq(copy, subset=subset, counts=True)
    assert found.uns["perturb_cite_seq"].pop("files").tolist() != []
    expected = loaded.copy()
    expected.uns["perturb_cite_seq"].pop("files")
    assert_same_adata(found, expected)


def test_only_what_is_wanted_is_kept(portal, loaded):
    folder, standin = portal
    genes = ["MYC", standin.genes[20], "B2M"] if "MYC" in standin.genes else standin.genes[7:2:-2]
    part = perturb_cite_seq(folder, condition=["IFNγ", "Control"], genes=genes, counts=True)
    cells = [c for c, k in zip(standin.cells, standin.conditions, strict=True) if k != "Co-culture"]
    assert part.obs_names.tolist() == cells
    assert part.var_names.tolist() == genes
    assert part.X.has_sorted_indices
    expected = loaded[cells, genes]
    assert np.array_equal(part.X.toarray(), expected.X.toarray())
    assert np.array_equal(part.layers["counts"].toarray(), expected.layers["counts"].toarray())
    assert part.obs["condition"].cat.categories.tolist() == ["Control", "IFNγ"]
    second = perturb_cite_seq(folder, subset="1b_alpha")
    assert second.obs_names.tolist() == standin.cells[15:30]


@pytest.mark.parametrize("change", ["plain", "windows", "quoted", "shuffled"])
def test_layouts_that_say_the_same(portal, loaded, change, tmp_path, assert_same_adata):
    folder, _ = portal
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "other/RNA_expression.csv.gz"
    text = gzip.decompress(path.read_bytes())
    if change == "plain":
        path.unlink()
        path.with_suffix("").write_bytes(text)
    elif change == "windows":
        path.write_bytes(gzip.compress(text.replace(b"\n", b"\r\n")))
        for file in [p for p in copy.rglob("*") if p.suffix in (".csv", ".txt")]:
            file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    elif change == "quoted":
        lines = [b",".join([b'"' + n + b'"', r]) for n, _, r in
                 (line.partition(b",") for line in text.splitlines())]  # fmt: skip
        lines[0] = b'"' + b'","'.join(text.splitlines()[0].split(b",")) + b'"'
        path.write_bytes(gzip.compress(b"\n".join(lines)))
    elif change == "shuffled":  # cells in another order than in the metadata
        table = pd.read_csv(path, index_col=0, dtype=str).sample(frac=1, axis=1, random_state=0)
        path.write_bytes(gzip.compress(table.to_csv().encode()))
    found = perturb_cite_seq(copy, counts=True)
    for adata in (found, expected := loaded.copy()):
        adata.uns["perturb_cite_seq"].pop("files")
    assert_same_adata(found, expected)
