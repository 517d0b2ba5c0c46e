"""The six lines of the README are the paper's method: they run, and results are where it says."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

import nextpert as npt

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"## The method of the paper in six lines\n(.*?)\n## ", re.DOTALL)
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
