"""A stored posterior that was damaged, cut or made by another version is refused by name."""

import re

import numpy as np
import pytest

from nextpert.core import DagBlr, Moments, random_scm


@pytest.fixture(params=["known", "inferred"])
def blr(request):
    scm = random_scm(7, rng=1)
    options = {"noise_var": 0.7, "prior_scale": 1.0} if request.param == "known" else {}
    return DagBlr(scm.dag, **options).update(Moments.from_array(scm.sample(60, rng=2)))


def damages(value):
    """What may have become of a stored array."""
    yield from ("text", b"bytes", None, {"a": 1}, [[1, 2], [3]], np.array(["a"], dtype=object))
    yield from (1j, -np.ones((2, 2)), np.array([]))
    yield from (value[:-1], value[: len(value) // 2], np.append(value, value[-1]), value[None])
    yield from (value.astype(str), value.astype(complex), value.astype(object) * 1j)
    if value.dtype.kind == "i":
        yield from (value + 0.5, value - 2, value + 1000, value[::-1] - 1, np.sort(value)[::-1] + 9)


def test_every_damage_is_a_clear_error(blr):
    stored = blr.to_dict()
    assert DagBlr.from_dict(stored).to_dict().keys() == stored.keys()
    for name, value in stored.items():
        if name != "known_noise_var":
            refused({key: part for key, part in stored.items() if key != name}, name)
        for damaged in damages(value) if isinstance(value, np.ndarray) else ():
            refused({**stored, name: damaged}, name)
    for format_ in (0, 1, 2.5):
        refused({**stored, "format": format_}, "format")


def refused(stored, name):
    with pytest.raises(ValueError, match="posterior is damaged") as caught:
        DagBlr.from_dict(stored)
    assert re.search(r"fit it again \(tl\.fit_dag_blr\)", str(caught.value)), name


def test_damages_of_the_graph_are_refused(blr):
    stored = blr.to_dict()
    rng = np.random.default_rng(3)
    for _ in range(100):
        indices, indptr = stored["indices"].copy(), stored["indptr"].copy()
        indices[rng.integers(len(indices))] = rng.choice([-5, -1, 7, 10**12])
        refused({**stored, "indices": indices}, "indices")
        indptr[rng.integers(len(indptr))] = rng.choice([-5, -1, 99, 10**12])
        refused({**stored, "indptr": indptr}, "indptr")


@pytest.mark.parametrize("stored", [None, 5, "text", [1], {}])
def test_what_is_no_posterior_is_refused(stored):
    refused(stored, "all")


def test_covariances_that_are_none_are_refused(blr):
    stored = blr.to_dict()
    wide = int(np.argmax(np.diff(blr.vptr)))
    cov = stored["cov"].copy()
    d = blr.vptr[wide + 1] - blr.vptr[wide]
    cov[blr.mptr[wide] + 1] = cov[blr.mptr[wide] + d] = 10 * cov.max()
    refused({**stored, "cov": cov}, "cov")
    cov[blr.mptr[wide] + 1] = 0.0
    refused({**stored, "cov": cov}, "cov")
