"""A fit, a diagnosis and a plan read every cell once, and a few once more to know them again."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import nextpert as npt

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]

da = pytest.importorskip("dask.array")

N_ROWS = 100  # of a chunk


class Counted:
    """A matrix that counts how often each of its rows is read."""

    def __init__(self, values):
        self.values, self.dtype, self.shape = values, values.dtype, values.shape
        self.ndim = 2
        self.n = np.zeros(len(values), int)
        self.lock = threading.Lock()

    def __getitem__(self, index):
        with self.lock:
            self.n[index[0]] += 1
        return self.values[index]

    def reads(self):
        """Reads of every row since the last call."""
        found, self.n = self.n, np.zeros_like(self.n)
        return found


@pytest.fixture(params=["guides and batches", "neither"])
def screen(request):
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=600, n_perturbed=60, perturbed=6, expected_degree=3, rng=0
    )
    rng = np.random.default_rng(1)
    adata.obs["plate"] = rng.choice(list("ab"), adata.n_obs)
    adata.obs["guide"] = adata.obs["perturbation"].astype(str) + rng.choice(list("xy"), adata.n_obs)
    adata.X = np.array(adata.X) + (adata.obs["plate"] == "a").to_numpy()[:, None]
    roles = {"guide_key": "guide", "batch_key": "plate"} if request.param != "neither" else {}
    if not roles:
        adata.obs = adata.obs[
            ["perturbation"]
        ]  # of columns like guides or batches a sample is read
    npt.pp.setup_screen(adata, **roles)  # looks at a sample of the values
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options={"n_runs": 2})
    counted = Counted(adata.X)
    adata.X = da.from_array(counted, chunks=(N_ROWS, -1), meta=np.empty((0, 0)))
    return adata, counted


def test_every_cell_is_read_once(screen):
    adata, counted = screen
    labelled = adata.obs["perturbation"].notna().to_numpy()
    assert labelled.all()
    counted.reads()
    for call in (npt.tl.fit_dag_blr, npt.tl.diagnose, npt.tl.plan_cells):
        call(adata)
        reads = counted.reads()  # the second time in the block of cells that are known again by
        # The plan of cells reads them again, with thinned counts for fewer reads.
        more = ((3, 3),) if call is npt.tl.plan_cells else ()
        allowed = ((1, 1), (1, 2), (2, 2), *more)
        assert (reads.min(), reads.max()) in allowed, call.__name__
    target = adata.obs["perturbation"].iloc[-1]
    wanted = npt.Target(state=[target, ("guide", f"{target}x")], distance="noise")
    wanted = wanted if "guide" in adata.obs else target
    for plan in (npt.tl.plan_screen, npt.tl.design_interventions):
        plan(adata, wanted, n_cells=400)
        assert counted.reads().max() <= 2, plan.__name__
