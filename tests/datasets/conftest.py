"""A small made-up study in the portal's layouts, written once."""

import gzip

import numpy as np
import pytest

from nextpert._adata.panel import ZHANG2023
from nextpert.datasets._perturb_cite_seq_standin import write_portal_standin
from nextpert.datasets._portal import SUBSETS
from nextpert.datasets._scp1064 import CONDITIONS

N = 90
ANTIBODIES = [f"CD{i}" for i in range(20)]
ISOTYPES = ["Mouse_IgG1", "Mouse_IgG2a", "Mouse_IgG2b", "Rat_IgG2a"]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(scope="session")
def portal(tmp_path_factory):
    """Folder of a study of 90 cells and 30 genes, what it holds, and its proteins."""
    folder = tmp_path_factory.mktemp("SCP1064")
    conditions = np.repeat(CONDITIONS, [24, 36, 30])
    study = write_portal_standin(folder, ZHANG2023[:15], conditions, n_genes=30, rng=1)
    text = gzip.decompress((folder / "other/RNA_expression.csv.gz").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()]
    for k, name in enumerate(SUBSETS):
        path = folder / f"expression/RNA_expression_subset{name}.csv.gz"
        write(path, [[row[0], *row[1 + 15 * k : 16 + 15 * k]] for row in rows])
    rng = np.random.default_rng(1)
    umap = [[cell, *rng.normal(size=2).round(5)] for cell in study.cells[::-1]]
    types = [["NAME", "X", "Y"], ["TYPE", "numeric", "numeric"]]
    write(folder / "cluster/5fb2a1c0/RNA_UMAP_cluster.csv", types + umap)
    # Raw proteins are missing for three cells; the others come in an order of their own.
    order = rng.permutation(N)[3:]
    protein = rng.poisson(8, (N, len(ANTIBODIES) + len(ISOTYPES)))
    header = ["", *(study.cells[i] for i in order)]
    raw = zip(ANTIBODIES + ISOTYPES, protein[order].T.tolist(), strict=True)
    write(folder / "other/raw_CITE_expression.csv.gz", [header, *([n, *row] for n, row in raw)])
    return folder, study, protein[order], header[1:]
