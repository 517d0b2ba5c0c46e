"""Fixtures shared by all tests: a small screen, deep comparison, a stand-in of the command."""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections.abc import Mapping

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import same_cells
from nextpert._adata.stored import with_parts
from nextpert.core import CycleError, Dag, LinearScm
from nextpert.core.model.sampler import Chain
from tests import _screens


@pytest.fixture(scope="session")
def files_in():
    """Return the sorted names in a folder, without the lock files, which stay by design."""
    return lambda folder: sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


@pytest.fixture(scope="session")
def described_anew():
    """Return a function that makes a result that a test has changed agree with its contents."""

    def describe_anew(stored):
        stored.update(with_parts(stored))

    return describe_anew


@pytest.fixture(scope="session")
def truth() -> LinearScm:
    """The model behind ``small_screen``."""
    return _screens.truth()


@pytest.fixture
def small_screen() -> ad.AnnData:
    """A screen of 400 controls and four knockouts of 60 cells; a new copy for every test."""
    return _screens.small_cells()


@pytest.fixture(scope="session")
def _full_screen():
    adata = _screens.small_cells()
    labels = adata.obs["perturbation"].astype(object).fillna("")
    guides = labels.map(lambda label: {"control": "NO_SITE_1", "": ""}.get(label, f"{label}_1"))
    adata.obs["guides"] = adata.obs["called"] = guides
    adata.obs["condition"] = "Control"
    with warnings.catch_warnings(action="ignore"):
        _screens.with_fit(adata, _screens.small_edges())
        npt.tl.design_interventions(adata, "MYC", n_samples=10)
        npt.tl.dag_fit(adata, n_random=20)
        npt.tl.diagnose(adata)
        npt.tl.cpca(adata)
        npt.tl.target_distances(adata, "MYC")
        npt.tl.perturbation_effects(adata)
        npt.tl.plan_cells(adata, "MYC")
        npt.tl.plan_screen(adata, "MYC", n_perturbations=2)
        npt.tl.replay_design(
            adata, ["MYC"], strategies=["exact_greedy", "random"], n_rounds=2, n_repeats=2
        )
    return adata


@pytest.fixture
def full_screen(_full_screen):
    """The small screen, with the results of every function; a new copy for every test."""
    return _full_screen.copy()


# Notes how it was called, and makes its files; with $FAIL it fails.
NOTING = """#!/usr/bin/env bash
# One write, as workflows run several commands at the same time.
line=$(printf '%q ' "$@"); printf '%s\n' "$line" >> "$COMMANDS"
[ -z "${FAIL:-}" ] || exit 2
for word in "$@"; do
  case ${last:-} in --out | --table) touch "$word" ;; esac
  last=$word
done
"""


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Put a stand-in of ``nextpert`` first on the path; return what runs in this process, in order.

    Scripts that start many commands cost no start of Python each.
    """
    programs, commands = tmp_path / "bin", tmp_path / "commands.txt"
    programs.mkdir()
    (programs / "nextpert").write_text(NOTING)
    (programs / "nextpert").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COMMANDS", str(commands))

    def run_them() -> list[str]:
        from nextpert.cli import main

        lines = commands.read_text().splitlines()
        for line in lines:
            assert main(shlex.split(line)) == 0, line
        return [line.split()[0] for line in lines]

    return run_them


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    """Fit 150 sweeps instead of 250, in fixtures too, unless a test has the mark full_chain.

    With the mark brief_chain, of tests that compare no effects with the truth, 20 sweeps. Examples
    in docstrings show what users get.
    """
    full = Chain.of_size
    brief = Chain(10, 10, 1) if item.get_closest_marker("brief_chain") else Chain(50, 100, 1)

    def short(size):
        return min(brief, full(size), key=lambda chain: chain.keep)

    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("full_chain") and not isinstance(item, pytest.DoctestItem):
            patch.setattr(Chain, "of_size", short)
        return (yield)


@pytest.fixture(scope="session")
def graph() -> Dag:
    """The graph behind ``small_screen``."""
    return Dag.from_edges(len(_screens.GENES), _screens.EDGES)


@pytest.fixture(scope="session")
def edges() -> list[tuple[str, str]]:
    """The edges behind ``small_screen`` by name."""
    return _screens.small_edges()


@pytest.fixture(scope="session")
def assert_same():
    """Compare nested results deeply: keys, types, number types, every value."""
    return _assert_same


@pytest.fixture(scope="session")
def assert_same_adata():
    """Compare all slots of two AnnData deeply."""

    def compare(one: ad.AnnData, two: ad.AnnData) -> None:
        assert one.is_view == two.is_view
        for slot in ("obs", "var", "X"):
            _assert_same(getattr(one, slot), getattr(two, slot), slot)
        for slot in ("layers", "obsm", "varm", "obsp", "varp", "uns"):
            # anndata 0.13 lists X as the layer None.
            items = [{k: v for k, v in getattr(a, slot).items() if k} for a in (one, two)]
            _assert_same(*items, slot)

    return compare


def _are_same_frames(one: pd.DataFrame, two: object) -> bool:
    return (
        isinstance(two, pd.DataFrame)
        and one.index.identical(two.index)
        and one.columns.identical(two.columns)
        and one.dtypes.tolist() == two.dtypes.tolist()
        and one.equals(two)
    )


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "OUT"


def _assert_same(one: object, two: object, where: str = "") -> None:
    if isinstance(one, Mapping):
        assert isinstance(two, Mapping), where
        assert sorted(one) == sorted(two), where
        for key in one:
            _assert_same(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, pd.DataFrame):
        if not _are_same_frames(one, two):  # says where, and is ten times as slow
            pd.testing.assert_frame_equal(one, two, check_exact=True)
    elif sp.issparse(one):
        assert type(one) is type(two), where
        assert one.dtype == two.dtype, where
        assert one.shape == two.shape, where
        assert np.array_equal(one.toarray(), two.toarray(), equal_nan=True), where
    elif isinstance(one, np.ndarray):
        assert isinstance(two, np.ndarray), where
        if _is_text(one):  # zarr gives back numpy's own strings, h5ad objects
            assert _is_text(two), where
            assert one.tolist() == two.tolist(), where
        else:
            assert one.dtype == two.dtype, where
            assert np.array_equal(one, two, equal_nan=True), where
    elif where.endswith(("/cells", "/cells/values")):
        # Of a matrix in memory a digest of all values follows; exact where both have it.
        assert same_cells(str(one), str(two)), where
    elif where.endswith("/contents"):
        # Texts are compared themselves; the sum of a fingerprint differs as the fingerprint does.
        assert re.sub(", sum [0-9a-f]+", "", str(one)) == re.sub(", sum [0-9a-f]+", "", str(two))
    else:
        assert type(one) is type(two), f"{where}: {type(one)} and {type(two)}"
        assert one == two or (one != one and two != two), where  # NaN


_EXPECTED = (ValueError, TypeError, FileNotFoundError)


@pytest.fixture
def assert_refused(assert_same_adata):
    """Call with bad input: one clear sentence that holds the words, and nothing changed."""

    def check(call, adata, words=(), error=_EXPECTED, one_of=()):
        before = None if adata is None else adata.copy()
        figures = plt.get_fignums()
        with warnings.catch_warnings(action="ignore"), pytest.raises(error) as caught:
            call(adata)
        # LinAlgError and the like are ValueErrors, too, and say nothing to a user.
        assert type(caught.value) in {*_EXPECTED, CycleError}
        message = str(caught.value)
        missing = [word for word in words if word not in message]
        assert not missing, f"{missing} not in {message!r}"
        assert not one_of or any(word in message for word in one_of), message
        assert len(message) >= 25, message
        assert message[-1] in ".)", message
        if adata is not None:
            assert_same_adata(adata, before)
        assert plt.get_fignums() == figures

    return check
