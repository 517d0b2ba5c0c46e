"""Results in ``.uns`` that were damaged, cut or written by another version are refused."""

import copy

import anndata as ad
import numpy as np
import pytest

import nextpert as npt

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]

READERS = {
    "dag": lambda a: npt.tl.fit_dag_blr(a, key_added="again"),
    "dag_blr": lambda a: npt.tl.design_interventions(a, "MYC", n_samples=100, key_added="other"),
    "design": lambda a: npt.pl.design(a, show=False),
    "diagnosis": lambda a: npt.pl.diagnose(a, show=False),
    "dag_fit": lambda a: npt.pl.dag_fit(a, show=False),
    "target_distances": lambda a: npt.pl.target_distances(a, show=False),
    "perturbation_effects": lambda a: npt.pl.perturbation_effects(a, show=False),
    "plan_cells": lambda a: npt.pl.plan_cells(a, show=False),
    "cpca": lambda a: npt.pl.cpca_density(a, show=False),
    "replay": lambda a: npt.pl.replay(a, show=False),
}


@pytest.fixture(scope="module")
def analysed(_full_screen, tmp_path_factory):
    """A screen with every result, once more read from a file."""
    path = tmp_path_factory.mktemp("stored") / "screen.h5ad"
    _full_screen.write_h5ad(path)
    return ad.read_h5ad(path)


@pytest.mark.parametrize("key", READERS)
def test_a_sound_result_is_read_from_a_file(analysed, key):
    READERS[key](analysed)


def damages(stored):
    """Copies of a result with one thing wrong in each."""
    yield {name: part for name, part in stored.items() if name != "format"}
    yield {**stored, "format": 0}
    yield {**stored, "format": "new"}
    yield {name: part for name, part in stored.items() if name != "contents"}
    yield {**stored, "contents": "{"}
    for name, part in stored.items():
        if name in ("format", "contents"):
            continue
        yield {other: value for other, value in stored.items() if other != name}
        for wrong in (None, 1j, {"a": 1}, [[1], [2, 3]], np.full((3, 1, 2), np.nan)):
            yield {**stored, name: wrong}
        if isinstance(part, np.ndarray) and len(part):
            yield {**stored, name: part[:-1]}
            if part.dtype.kind == "f" and np.isfinite(part).all():
                yield {
                    **stored,
                    name: np.where(np.arange(part.size).reshape(part.shape), part, np.nan),
                }
        if hasattr(part, "columns"):
            yield {**stored, name: part.drop(columns=part.columns[0])}
        elif hasattr(part, "keys"):
            for key in part:
                yield {**stored, name: {other: part[other] for other in part if other != key}}


@pytest.mark.parametrize("key", READERS)
def test_every_damage_is_a_clear_error(analysed, key):
    adata = analysed[:, :].copy()
    every = list(damages(dict(analysed.uns[key])))
    for damaged in every:
        adata.uns = {**analysed.uns, key: damaged}
        with pytest.raises(ValueError, match=r"run tl\.\w+ (again|first)") as caught:
            READERS[key](adata)
        assert repr(key) in str(caught.value)
    assert len(every) > 25


def test_a_design_is_not_continued_on_a_damaged_one(analysed):
    adata = analysed.copy()
    adata.uns["design"] = copy.deepcopy(dict(adata.uns["design"]))
    del adata.uns["design"]["trace"]
    with pytest.raises(ValueError, match=r"run tl\.design_interventions with another key_added"):
        npt.tl.design_interventions(adata, "MYC", n_samples=100)
