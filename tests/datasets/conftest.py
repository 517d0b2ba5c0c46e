"""A small made-up study in the portal's layouts, written once."""

import gzip

import numpy as np
import pytest

from nextpert._adata.panel import ZHANG2023
from nextpert.datasets._perturb_cite_seq_standin import write_portal_standin
from nextpert.datasets._portal import SUBSETS
from nextpert.datasets._scp1064 import CONDITIONS

N = 90


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture(scope="session")
def portal(tmp_path_factory):
    """Folder of a study of 90 cells and 30 genes, and what it holds."""
    folder = tmp_path_factory.mktemp("SCP1064")
    conditions = np.repeat(CONDITIONS, [24, 36, 30])
    study = write_portal_standin(folder, ZHANG2023[:15], conditions, n_genes=30, rng=1)
    text = gzip.decompress((folder / "other/RNA_expression.csv.gz").read_bytes()).decode()
    rows = [line.split(",") for line in text.splitlines()]
    for k, name in enumerate(SUBSETS):
        path = folder / f"expression/RNA_expression_subset{name}.csv.gz"
        write(path, [[row[0], *row[1 + 15 * k : 16 + 15 * k]] for row in rows])
    return folder, study
