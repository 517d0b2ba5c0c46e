"""From a file of counts, guides and Ensembl IDs to an order: the lines of the page, real screens.

The results equal those by the labels that the authors of the screens assigned.
"""

import re
import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "prepare_a_screen.md"
FEWER = {"n_graphs=25": "n_graphs=2, search_options={'n_runs': 1}",
         "--n-graphs 25": "--n-graphs 2 --n-runs 1"}  # fmt: skip
GRAPH = {"method": "boss", "environments": "all", "n_graphs": 2, "search_options": {"n_runs": 1}}

pytestmark = [
    pytest.mark.screen,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Perturbations left out"),
]


def lines_of(language, target):
    """The lines of the section, shorter in time, towards a target."""
    text = PAGE.read_text(encoding="utf-8").split("## From a file to an order\n")[1]
    block = re.search(rf"```{re.escape(language)}\n(.*?)```", text, re.DOTALL).group(1)
    for usual, fewer in (FEWER | {"UBR5": target}).items():
        block = block.replace(usual, fewer)
    return block.strip().splitlines()


def papalexi(folder):
    """The screen as its authors labelled it, the column of guides, and a target."""
    adata = ad.read_h5ad(folder / "papalexi_thp1" / "papalexi_lowmoi.h5ad")
    return adata, adata.obs["grna"], "control", "IFNGR2"


def tap_seq(folder):
    """As above; cells with several guides have the targets of those that are no controls."""
    adata = ad.read_h5ad(folder / "schraivogel_tapseq" / "schraivogel_tapseq_umi5.h5ad")
    guides = adata.obs["guides"].astype(str)
    lists = [[x for x in text.split("_") if x] for text in adata.obs["targets"].astype(str)]
    labels = ["+".join(x for x in some if x != "non-targeting") or "".join(some) for some in lists]
    adata.obs["perturbation"] = [label or "unassigned" for label in labels]
    is_control = np.array([name == "non-targeting" for name in adata.obs["perturbation"]])
    alone = guides.str.replace(r"(^|;)[^;]*_non-targeting_\d+", "", regex=True).str.strip(";")
    adata.obs["guides"] = np.where(is_control, guides, alone)
    return adata, guides, "non-targeting", "UBR5"


@pytest.mark.parametrize("read", [papalexi, tap_seq])
def test_a_stripped_file_leads_to_the_order_of_the_curated_labels(
    read, screen_path, tmp_path, monkeypatch
):
    curated, guides, control, target = read(screen_path)
    ids = [f"ENSG{i:011d}" for i in range(curated.n_vars)]
    obs = pd.DataFrame({"guide": guides.astype(str).to_numpy()}, curated.obs_names)
    var = pd.DataFrame({"gene_symbols": list(curated.var_names)}, ids)
    monkeypatch.chdir(tmp_path)
    ad.AnnData(curated.X, obs, var).write_h5ad("screen.h5ad")

    guide_key = "grna" if read is papalexi else "guides"
    npt.pp.perturbation_screen(curated, control=control, guide_key=guide_key)
    npt.tl.learn_dag(curated, **GRAPH)
    npt.tl.fit_dag_blr(curated)
    npt.tl.plan_screen(curated, target, n_cells=2000)
    expected = npt.get.order_df(curated)
    assert len(expected) > 1

    lines = lines_of("{code-block} python", target)
    assert len(lines) <= 8
    space = {}
    exec("\n".join(lines), space)
    found = space["adata"]
    assert (found.obs["perturbation"].astype(str) == curated.obs["perturbation"].astype(str)).all()
    for adata in (curated, found):
        npt.tl.perturbation_effects(adata)
    effects, known = (x.uns["perturbation_effects"] for x in (found, curated))
    np.testing.assert_array_equal(effects["perturbations"], known["perturbations"])
    np.testing.assert_array_equal(effects["mean"], known["mean"])
    pd.testing.assert_frame_equal(npt.get.order_df(found), expected)
    by_lines = Path("order.csv").read_text(encoding="utf-8")
    Path("order.csv").unlink()

    commands = lines_of("bash", target)
    assert len(commands) <= 6
    for command in commands:
        assert main([*shlex.split(command)[1:], "--quiet"]) == 0
    assert Path("order.csv").read_text(encoding="utf-8") == by_lines
