"""Damaged sparse matrices: a clear error everywhere, before a kernel trusts their indices."""

from functools import cache

import anndata as ad
import h5py
import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Moments
from tests._screens import screen_of, with_fit

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]

GENES = ["A", "B", "C", "D"]
N = 240
FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix}


@cache
def _cells(form):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, (N, 4)) * (rng.random((N, 4)) < 0.7)
    adata = screen_of(
        FORMS[form](x), np.repeat(["control", "A", "B", "D"], [120, 40, 40, 40]), GENES
    )
    return with_fit(adata, [("A", "B"), ("C", "B")])


def cells(form):
    return _cells(form).copy()


def large(arrays):
    arrays["indices"][::7] = 10**6


def negative(arrays):
    arrays["indices"][::7] = -3


def falling(arrays):
    arrays["indptr"][2] = arrays["indptr"][-1] + 1


def beyond(arrays):
    arrays["indptr"][-1] += 1000


DAMAGES = {f.__name__: f for f in (large, negative, falling, beyond)}


def broken(adata, damage):
    """The cells with their matrix damaged in place."""
    x = adata.X.copy()
    parts = {"indices": x.indices, "indptr": x.indptr}
    DAMAGES[damage](parts)
    adata.X = x
    return adata


def in_file(adata, damage, path):
    adata.write_h5ad(path)
    with h5py.File(path, "a") as file:
        parts = {name: file["X"][name][:] for name in ("indices", "indptr")}
        DAMAGES[damage](parts)
        for name, array in parts.items():
            file["X"][name][:] = array
    return path


CALLS = {
    "learn": lambda a: npt.tl.learn_dag(a, method="boss", key_added="again"),
    "fit": npt.tl.fit_dag_blr,
    "diagnose": npt.tl.diagnose,
    "distances": lambda a: npt.tl.target_distances(a, "A"),
    "dag_fit": npt.tl.dag_fit,
    "cpca": lambda a: npt.tl.cpca(a, alpha=1.0),
    "design": lambda a: npt.tl.design_interventions(a, ("perturbation", "A")),
    "replay": lambda a: npt.tl.replay_design(a),
    "screen": lambda a: npt.pp.perturbation_screen(a, copy=True),
    "panel": lambda a: npt.pp.perturbation_screen(a, panel=GENES, copy=True),
    "shift": lambda a: npt.pl.expression_shift(a, show=False),
    "guides": lambda a: npt.pp.assign_guides(
        a, guides=a, targets=dict.fromkeys(a.var_names, "A"), copy=True
    ),
}
# All calls read cells by the same functions: every call once, and every damage in every form.
FILES = [("fit", name, form) for name in DAMAGES for form in FORMS] + [("screen", "large", "csr")]
CASES = [(call, "large", "csr") for call in CALLS if call not in ("fit", "screen")] + FILES
MESSAGE = r"is damaged: it has|index pointer|index values"


@pytest.mark.parametrize(("call", "damage", "form"), CASES)
def test_in_memory(form, damage, call):
    adata = broken(cells(form), damage)
    with pytest.raises(ValueError, match=r"is damaged: it has"):
        CALLS[call](adata)


@pytest.mark.parametrize(("call", "damage", "form"), FILES)
def test_backed(form, damage, call, tmp_path):
    backed = ad.read_h5ad(in_file(cells(form), damage, tmp_path / "x.h5ad"), backed="r")
    with pytest.raises(ValueError, match=r"is damaged: it has"):
        CALLS[call](backed)
    backed.file.close()


@pytest.mark.parametrize(("call", "damage", "form"), FILES)
def test_lazy(form, damage, call, tmp_path):
    pytest.importorskip("dask", reason="the extra dask is not installed")
    adata = ad.experimental.read_lazy(in_file(cells(form), damage, tmp_path / "x.h5ad"))
    with pytest.raises(ValueError, match=MESSAGE):
        CALLS[call](adata)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_graphs_and_moments(form, damage):
    adata = cells("csr")
    graph = FORMS[form](adata.varp["dag"])
    DAMAGES[damage]({"indices": graph.indices, "indptr": graph.indptr})
    with pytest.raises(ValueError, match="The adjacency matrix is damaged"):
        npt.tl.learn_dag(adata, method="given", dag=graph)
    adata.varp["dag"] = graph
    with pytest.raises(ValueError, match=r"adata\.varp\['dag'\] is damaged"):
        npt.tl.fit_dag_blr(adata)
    with pytest.raises(ValueError, match="is damaged"):
        Moments.from_array(broken(cells(form), damage).X)


def part_gone(x):
    del x["indptr"]


def another_shape(x):
    shape = [100, 4] if x.attrs["encoding-type"] == "csr_matrix" else [N, 3]
    x.attrs["shape"] = shape
    array = x["indptr"][: (101 if shape[1] == 4 else 4)]
    del x["indptr"]
    x["indptr"] = array


WRECKS = (part_gone, another_shape)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("wreck", WRECKS)
@pytest.mark.parametrize("form", FORMS)
def test_files_whose_parts_do_not_fit(form, wreck, lazy, tmp_path):
    path = tmp_path / "x.h5ad"
    cells(form).write_h5ad(path)
    with h5py.File(path, "a") as file:
        wreck(file["X"])
    if lazy:
        pytest.importorskip("dask", reason="the extra dask is not installed")
        try:
            adata = ad.experimental.read_lazy(path)
        except ValueError:
            return  # anndata 0.13 sees some of it on opening
    else:
        adata = ad.read_h5ad(path, backed="r")
    for name in ("learn", "distances"):
        with pytest.raises(ValueError, match=MESSAGE):
            CALLS[name](adata)
    if not lazy:
        adata.file.close()
