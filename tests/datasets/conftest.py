"""A small made-up study in the portal's layouts, written once."""

import pytest

from nextpert.datasets._scp1064.standin import write_portal_standin


@pytest.fixture(scope="session")
def portal(tmp_path_factory):
    """Folder of a study of 90 cells and 30 genes, and what it holds."""
    folder = tmp_path_factory.mktemp("SCP1064")
    return folder, write_portal_standin(folder, n_cells=90, n_genes=30, rng=1)
