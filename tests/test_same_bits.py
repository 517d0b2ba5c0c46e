"""The same bits for one and two BLAS threads, and for any hash seed."""

import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nextpert.core._blas import one_thread

pytestmark = pytest.mark.processes

# 600 genes: from some 500 on BLAS gives parts of a product to its threads. What the functions do
# to cells is seen on few, for they call the same products.
CODE = """
import hashlib, sys, warnings
import anndata as ad, numpy as np, pandas as pd, nextpert as npt
from nextpert.core import Civ, DagBlr, Moments, Sphere, boss, minimal_imap, random_scm

warnings.simplefilter("ignore")

def digest(value):
    if hasattr(value, "items") and not hasattr(value, "columns"):
        return {str(k): digest(v) for k, v in sorted(value.items())}
    if hasattr(value, "to_csv"):
        value = value.to_csv()
    value = value.tocsr().data if hasattr(value, "tocsr") else np.asarray(value)
    text = repr(value.tolist()).encode() if value.dtype == object else value.tobytes()
    return hashlib.sha256(text).hexdigest()

p = int(sys.argv[1])
scm = random_scm(p, "erdos_renyi", rng=0)
x = scm.sample(2 * p, rng=1)
moments = Moments.from_array(x)
print(digest(x), digest(moments.scatter))
print(digest(boss(moments, n_starts=1, rng=0).dag.indices))
print(digest(minimal_imap(moments, range(p)).indices))
blr = DagBlr(scm.dag).update(moments)
civ = Civ(blr, x[-1], n_cells=50, noise_aware=True)
print(digest(blr.to_dict()), digest(civ.values(x[:20])))
print(digest(Sphere(1.0).minimise(civ, rng=0).shift))

p = int(sys.argv[2])
scm = random_scm(p, "erdos_renyi", rng=0)
cells = [scm.sample(5 * p, rng=1)]
names = [f"g{i}" for i in range(p)]
labels = ["control"] * (5 * p)
for k in range(3):
    cells.append(scm.sample(60, -1.5 * np.eye(p)[k], rng=2 + k))
    labels += [names[k]] * 60
x = np.vstack(cells)
obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=[str(i) for i in range(len(x))])
adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=names))
npt.tl.learn_dag(adata, method="given", dag=[(names[k], names[i]) for k, i in scm.dag.edges()])
npt.tl.fit_dag_blr(adata)
npt.tl.design_interventions(adata, "g0", n_samples=100, rng=0)
npt.tl.plan_screen(adata, "g0", candidates="genes", rng=0)
npt.tl.target_distances(adata, "g0")
npt.tl.perturbation_effects(adata)
npt.tl.plan_cells(adata, "g0")
npt.tl.cpca(adata, alpha=1.0, rng=0)
npt.tl.dag_fit(adata, n_random=20, rng=0)
for key in sorted(adata.uns):
    print(key, digest(adata.uns[key]))
print(digest(adata.obsm["X_cpca"]))
"""


def output(**variables):
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    threads = dict.fromkeys(names, variables.pop("threads", "1"))
    command = [sys.executable, "-c", CODE, "600", "40"]
    done = subprocess.run(
        command, env={**os.environ, **threads, **variables}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_threads_and_hash_seeds_change_no_bit():
    if (os.cpu_count() or 1) < 2:
        pytest.skip("BLAS takes no second thread on one core")
    first = output(PYTHONHASHSEED="0")
    assert len(first) > 8
    assert output(threads="2", PYTHONHASHSEED="1") == first


def blas_threads():
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


def test_every_blas_is_found_and_held_to_one_thread():
    with one_thread():
        threads = blas_threads()
    assert threads
    assert set(threads) == {1}


def test_the_last_to_leave_removes_the_limit_of_threads():
    with threadpool_limits(2, user_api="blas"):
        one, two = one_thread(), one_thread()
        one.__enter__()
        two.__enter__()
        one.__exit__(None, None, None)  # another thread is still at work
        assert set(blas_threads()) == {1}
        two.__exit__(None, None, None)
        assert set(blas_threads()) == {2}
        with pytest.raises(ValueError, match="as given"), one_thread():
            raise ValueError("as given")
        assert set(blas_threads()) == {2}
