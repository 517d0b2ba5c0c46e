"""The six lines of the README are the paper's method: they run, and results are where it says."""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"## The method of the paper in six lines\n(.*?)\n## ", re.DOTALL)
ITEMS = re.compile(r"## Every item of the paper\n(.*?)\n## ", re.DOTALL)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def section():
    return SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))[1]


def lines(text):
    """The calls of the first block of a text, but for what imports or writes the stand-in."""
    every = BLOCK.search(text)[1].replace('"SCP1064", ', "").splitlines()
    return [one for one in every if one and not re.search(r"^import|_standin\(", one)]


def test_guide_and_readme_have_the_same_six_lines():
    guide = (ROOT / "docs" / "guides" / "the_paper.md").read_text(encoding="utf-8")
    assert len(lines(section())) == 6
    assert lines(guide) == lines(section())


def in_full(adata, target):
    """Design with every setting of the guide given as an argument, after a warm-up fit."""
    prior = {"prior_scale": 1}
    npt.tl.fit_dag_blr(adata, perturbations=[], shift_sd=0, prior_options=prior)
    controls = npt.core.DagBlr.from_dict(adata.uns["dag_blr"]["posterior"])
    prior["noise_var"] = dict(zip(adata.uns["dag_blr"]["genes"], controls.noise_var, strict=True))
    prior["intercept"] = "centred"
    npt.tl.fit_dag_blr(adata, shift_sd=0, prior_options=prior)
    options = {"n_cells": 10, "noise_aware": False, "candidates": list(adata.var_names)}
    npt.tl.design_interventions(adata, target, acquisition="civ", **options)


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standin")
    npt.datasets.perturb_cite_seq_standin(folder)
    adata = npt.datasets.perturb_cite_seq(folder, condition="Control", genes="zhang2023")
    npt.pp.perturb_cite_seq(adata, preset="zhang2023")
    npt.tl.learn_dag(adata, preset="zhang2023", search_options={"prior": {}})
    return adata


def test_the_preset_is_the_settings_of_the_guide(standin):
    assert standin.uns["dag"]["params"]["n_runs"] == 1000
    assert standin.uns["preprocessing"]["params"]["min_cells"] == 1
    firsts = set()
    for target in ("CDH19", "EIF3K", "HLA-C", "SERPINE2", "TGFB1", "MYC"):
        preset, full = standin.copy(), standin.copy()
        npt.tl.fit_dag_blr(preset, preset="zhang2023")
        every = list(preset.var_names)
        npt.tl.design_interventions(preset, target, preset="zhang2023", candidates=every)
        in_full(full, target)
        one, other = (each.uns["design"]["ranking"] for each in (preset, full))
        pd.testing.assert_frame_equal(one, other, check_exact=True)
        assert one["acquisition"][:-1].is_monotonic_increasing
        firsts.add(one["perturbation"].iloc[0])
    assert len(firsts) > 1


@pytest.mark.parametrize(
    ("call", "given"),
    [
        (npt.tl.fit_dag_blr, {"shift_sd": "learned"}),
        (npt.tl.fit_dag_blr, {"prior_options": {"prior_scale": 2}}),
        (npt.tl.fit_dag_blr, {"prior_options": {"noise_var": 1.0}}),
        (npt.tl.learn_dag, {"search_options": {"n_runs": 100}}),
        (npt.tl.learn_dag, {"method": "boss"}),
        (partial(npt.tl.design_interventions, target="CDH19"), {"acquisition": "greedy"}),
        (partial(npt.tl.design_interventions, target="CDH19"), {"n_cells": 100}),
    ],
)
def test_an_argument_that_contradicts_the_preset_is_named(call, given):
    ((name, value),) = given.items()
    if isinstance(value, dict):
        ((name, value),) = value.items()
    with pytest.raises(ValueError, match=f"preset='zhang2023' has {name}=.*{name}={value!r}"):
        call(ad.AnnData(np.ones((2, 2))), preset="zhang2023", **given)


def test_the_six_lines_run_on_the_stand_in(tmp_path, monkeypatch):
    npt.datasets.perturb_cite_seq_standin(tmp_path)
    load = partial(npt.datasets.perturb_cite_seq, tmp_path)
    monkeypatch.setattr(npt.datasets, "perturb_cite_seq", load)
    space = {"npt": npt}
    exec("\n".join(lines(section())), space)
    adata = space["adata"]
    params = {key: adata.uns[key]["params"] for key in ("dag", "dag_blr", "design")}
    assert (params["dag"]["method"], params["dag"]["environments"]) == ("gsp", "control")
    posterior = npt.core.DagBlr.from_dict(adata.uns["dag_blr"]["posterior"])
    assert (posterior.prior_scale, posterior.prior_units, posterior.prior_shape) == (1, "data", 2)
    # Known shifts: minus the control mean of the target, and no other.
    shifts = adata.uns["dag_blr"]["shifts"].toarray()
    mean, genes = adata.uns["dag_blr"]["control_mean"], list(adata.uns["dag_blr"]["genes"])
    for row, name in zip(shifts, adata.uns["dag_blr"]["environments"]["perturbation"], strict=True):
        assert row[genes.index(name)] == pytest.approx(-mean[genes.index(name)])
        assert (row != 0).sum() == 1
    ranking = adata.uns["design"]["ranking"]
    assert params["design"]["acquisition"] == "civ"
    assert set(ranking.loc[ranking["is_control"] == 0, "perturbation"]) == set(genes)
    stored = re.findall(r'`(varp|uns|obsm)\["(\w+)"\]`(?:: ((?:`\w+`(?:, )?)+))?', section())
    assert len(stored) >= 5
    for place, key, parts in stored:
        assert key in getattr(adata, place), (place, key)
        for part in re.findall(r"`(\w+)`", parts):
            assert part in adata.uns[key]
    # The next call that README names.
    assert npt.pl.cpca_density(adata, groups=["CDH19", "SOX4", "HLA-C"], return_fig=True)


def items():
    """Item, call and test of every row of the guide's list, without headings."""
    text = ITEMS.search((ROOT / "docs" / "guides" / "the_paper.md").read_text(encoding="utf-8"))[1]
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rows = [[*row, ""][:3] for row in rows]
    return [tuple(row) for row in rows if not row[0].startswith("**")]


def keys_of_the_benchmark():
    """Figures that ``python -m benchmarks.paper`` draws."""
    from benchmarks.paper.__main__ import KEYS

    return KEYS


def require(name):
    """Raise unless a call, a figure of the benchmark, or a test exists."""
    if name.startswith("tests/"):
        path, _, test = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
        assert not test or test in functions, name
        assert any(each.startswith("test_") for each in functions), name
    elif name.startswith("benchmarks.paper "):
        assert name.split()[1] in keys_of_the_benchmark(), name
    else:
        package, *parts = name.split(".")
        assert package == "nextpert", name
        found = npt
        for part in parts:
            found = getattr(found, part)
        assert callable(found), name


def require_page(link):
    """Raise unless a page exists, and has the heading that the link names."""
    page, _, anchor = link.partition("#")
    path = ROOT / "docs" / "guides" / (page or "the_paper.md")
    if not path.exists():  # pages of benchmarks are copied when the documentation is built
        path = ROOT / page.removeprefix("../")
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    slugs = {re.sub(r"[^a-z0-9 -]", "", x.lower()).replace(" ", "-") for x in headings}
    assert not anchor or anchor in slugs, link


@pytest.mark.parametrize("row", items(), ids=lambda row: re.sub(r"[^A-Za-z0-9 ]", "", row[0])[:40])
def test_every_item_of_the_paper_has_what_its_row_names(row):
    _, call, test = row
    if call.startswith("none: "):
        assert len(call) > 20
    else:
        assert call.startswith("`")
        assert test
    names = re.findall(r"`([^`]+)`", call + test)
    links = re.findall(r"\]\(([^)]+)\)", call + test)
    for name in names:
        require(name)
    for link in links:
        require_page(link)


def test_the_list_has_every_figure():
    text = " ".join(item for item, _, _ in items())
    for name in [*(f"Fig. {k}" for k in range(1, 7)), *(f"Data Fig. {k}:" for k in range(1, 11))]:
        assert name in text, name
    drawn = {x for _, call, _ in items() for x in re.findall(r"`benchmarks.paper (\w+)`", call)}
    assert drawn == set(keys_of_the_benchmark())
