"""A cluster of two worker processes, one of them killed in mid-work: the same bits as alone."""

import contextlib
import os
import signal
import threading
import time

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import read, read_groupings
from nextpert._adata.roles import Roles
from nextpert.core import Moments, gsp, random_scm

pytestmark = pytest.mark.processes

dask = pytest.importorskip("dask", reason="the extra dask is not installed")
da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
psutil = pytest.importorskip("psutil", reason="it comes with the extra dask")


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory):
    """Two worker processes of one thread each, on the loopback address alone."""
    # Killed workers are to come back however busy the machine is; after 15 s the default gives up.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "5 minutes"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("workers")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(shared_client):
    """The cluster with both workers alive; a killed one is started again by its nanny.

    A worker is registered a moment before its nanny knows it: one killed in between is given up.
    """
    nannies = shared_client.cluster.workers.values()
    running = distributed.Status.running
    until = time.monotonic() + 120
    while len(shared_client.nthreads()) < 2 or any(n.process.status != running for n in nannies):
        assert time.monotonic() < until
        time.sleep(0.05)
    return shared_client


def kill_a_busy_worker(client, pids, ready):
    """End a worker that is at work, as the kernel does where memory runs out; return its id."""
    until = time.monotonic() + 120  # the workers import first, maybe on a busy machine
    while time.monotonic() < until:
        busy = [worker for worker, tasks in client.processing().items() if tasks and ready()]
        if busy:
            victim = pids[busy[0]]
            # The nannies live in this process: nothing but a child of it is ever killed.
            assert psutil.Process(victim).ppid() == os.getpid()
            os.kill(victim, signal.SIGKILL)
            return victim
        time.sleep(0.001)
    return None


@contextlib.contextmanager
def one_worker_killed(client, ready=lambda: True):
    """Kill a worker as soon as it is at work on what is done inside the block."""
    pids = client.run(os.getpid)  # beforehand, for busy workers are slow to answer
    killed = []
    watcher = threading.Thread(
        target=lambda: killed.append(kill_a_busy_worker(client, pids, ready))
    )
    watcher.start()
    try:
        yield
    finally:
        watcher.join()
    assert killed[0] is not None
    assert killed[0] not in client.run(os.getpid).values()


def same_bits(one, two):
    return one.n == two.n and all(
        getattr(one, name).tobytes() == getattr(two, name).tobytes() for name in ("mean", "scatter")
    )


def test_moments(client, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 5 * 100)
    rng = np.random.default_rng(0)
    x = np.log1p(rng.poisson(0.4, size=(3000, 20))) * rng.uniform(1, 2, size=(3000, 1))
    groups = rng.integers(-1, 4, size=3000)
    columns = np.array([12, 3, 7, 18, 0])
    under_way = tmp_path / "under_way"

    def slowly(chunk, block_info=None):
        time.sleep(0.02)
        if block_info and block_info[0]["chunk-location"][0] == 10:
            under_way.touch()  # a quarter of the blocks done, sums in the workers' memory
        return sp.csr_matrix(chunk)

    lazy = da.from_array(x, chunks=(70, 20))
    lazy = lazy.map_blocks(slowly, dtype=x.dtype, meta=sp.csr_matrix(np.empty((0, 0))))
    obs = pd.DataFrame(index=np.arange(3000).astype(str))
    with one_worker_killed(client, under_way.exists):
        (found,), _ = read_groupings(ad.AnnData(lazy, obs), columns, [(groups, 4)], Roles())
    here = ad.AnnData(sp.csr_matrix(x), obs)
    (alone,), _ = read_groupings(here, columns, [(groups, 4)], Roles())
    assert all(same_bits(a, b) for a, b in zip(found, alone, strict=True))
    cells = x[groups == 2][:, columns]
    np.testing.assert_allclose(found[2].scatter, np.cov(cells.T, bias=True) * len(cells))


def test_restarts_of_gsp(client):
    cells = random_scm(60, "erdos_renyi", expected_degree=8, rng=0).sample(2000, rng=1)
    moments = Moments.from_array(cells)
    options = {"n_runs": 1500, "alpha": 1e-3, "rng": 3}
    alone = gsp(moments, **options)
    with one_worker_killed(client), joblib.parallel_config(backend="dask"):
        found = gsp(moments, n_jobs=None, **options)
    assert found.dag.edges() == alone.dag.edges()
    assert found.best_run == alone.best_run
    np.testing.assert_array_equal(found.n_edges, alone.n_edges)
    np.testing.assert_array_equal(found.order, alone.order)


@pytest.mark.brief_chain
def test_fit_of_lazy_cells(client, assert_same):
    """Cells summed up and graphs learned by the workers: the fit has the bits of one process."""
    alone = npt.datasets.simulated_screen(
        n_genes=12, n_control=600, n_perturbed=40, perturbed=4, expected_degree=3
    )
    lazy = alone.copy()
    lazy.X = da.from_array(alone.X, chunks=(97, alone.n_vars))
    options = {"method": "boss", "environments": "all", "n_graphs": 6}
    npt.tl.learn_dag(alone, **options)
    with joblib.parallel_config(backend="dask"):
        npt.tl.learn_dag(lazy, **options)
        npt.tl.fit_dag_blr(lazy)
    npt.tl.fit_dag_blr(alone)
    assert_same(lazy.uns["dag_blr"], alone.uns["dag_blr"])
    for adata in (alone, lazy):
        npt.tl.perturbation_effects(adata)
    assert_same(lazy.uns["perturbation_effects"], alone.uns["perturbation_effects"])


@pytest.mark.full_chain  # as worker processes fit
def test_a_diagnosis_on_the_cluster_is_that_of_one_process(client, small_screen):
    npt.tl.learn_dag(small_screen, method="boss", environments="all")
    npt.tl.fit_dag_blr(small_screen)
    alone = npt.tl.diagnose(small_screen, copy=True).uns["diagnosis"]
    with joblib.parallel_config(backend="dask"):
        there = npt.tl.diagnose(small_screen, n_jobs=2, copy=True).uns["diagnosis"]
    pd.testing.assert_frame_equal(there["perturbations"], alone["perturbations"], check_exact=True)
    pd.testing.assert_frame_equal(there["parts"], alone["parts"], check_exact=True)
