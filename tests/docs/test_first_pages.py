"""What a newcomer runs first, on the real screen: it gives the numbers told beside it."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
from functools import partial
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import nextpert as npt

pytestmark = [
    pytest.mark.screen,
    pytest.mark.filterwarnings("ignore:Shifts learned from cells alone"),
]
ROOT = Path(__file__).parents[2]
README, LANDING, START = (ROOT / name for name in ("README.md", "docs/index.md", "docs/start.md"))
_spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("test_pages.py"))
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)


def text_of(path):
    """The page's text on one line, so that it may be broken anywhere."""
    return " ".join(path.read_text(encoding="utf-8").split())


def statements(path):
    """The statements of a page's Python, one by one and without comments."""
    code = "\n".join(code for _, code in pages.blocks(path.read_text(encoding="utf-8")))
    return [ast.unparse(statement) for statement in ast.parse(code).body]


def shared():
    """The calls that README and landing page begin with; the first page makes them too."""
    pairs = zip(statements(README), statements(LANDING), strict=False)
    same = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    assert same[-1] == "npt.tl.diagnose(adata)"
    return same


@pytest.fixture(scope="module")
def judged(screen_path):
    """The screen after the shared calls, and how many cells it had before them."""
    folder = screen_path / "schraivogel_tapseq"
    if not folder.is_dir():
        pytest.skip("the TAP-seq screen is not in the folder of the real screens")
    space = {}
    with pytest.MonkeyPatch.context() as patch:
        load = partial(npt.datasets.schraivogel_2020, folder)
        patch.setattr(npt.datasets, "schraivogel_2020", load)
        for statement in shared():
            exec(statement, space)
            if "schraivogel_2020()" in statement:
                n_cells = space["adata"].n_obs
    return space["adata"], n_cells


def run(path, judged, folder, patch):
    """The page's names after its other calls, made on a copy of the screen."""
    every, begun = statements(path), shared()
    assert [one for one in every if one in begun] == begun
    patch.chdir(folder)
    patch.setenv("MPLBACKEND", "agg")
    space = {"npt": npt, "adata": judged[0].copy()}
    for statement in every:
        if statement not in begun:
            exec(statement, space)
    assert (folder / "plate.html").stat().st_size > 10_000
    return space


def short(number):
    """A number as the pages write it: two decimals, no zero before the point."""
    return f"{number:.2f}".removeprefix("0")


def interval(row):
    return f"{short(row['predicted_low'])} to {short(row['predicted_high'])}"


def assert_quoted(number, verdict):
    """The page's quotation is the verdict's, but for ``[...]`` left out and [words] put in."""
    quotes = re.findall(r"(?:^> .*\n)+", START.read_text(encoding="utf-8"), re.MULTILINE)
    quote = " ".join(line.removeprefix("> ") for line in quotes[number].splitlines())
    parts = [re.sub(r"\[\w+\]", "", part).strip(" .") for part in quote.split("[...]")]
    place = 0
    for part in parts:
        assert part in verdict[place:]
        place = verdict.index(part, place) + len(part)


def assert_printed(plan):
    """README shows the plate as it is on other machines too, and what is said of it is true."""
    (shown,) = re.findall(r"```text\n(.*?)```", README.read_text("utf-8"), re.S)
    told = pd.read_csv(io.StringIO(shown), sep=r"\s+")
    plate, summary = plan["plate"], plan["summary"]
    now = plate[told.columns].head(len(told))
    # In any order: some of them are equally near.
    assert sorted(told["perturbation"]) == sorted(now["perturbation"])
    assert told["n_cells"].tolist() == now["n_cells"].tolist()
    np.testing.assert_allclose(told["state_distance"], now["state_distance"], atol=0.02)
    page = text_of(README)
    (said,) = re.findall(r"distance of (\S+), where the control's is (\S+)\. Of (\d+) cand", page)
    (chance,) = re.findall(r"the plate contains the nearest with probability (0\.\d+)\.", page)
    known = [*plate["state_distance"].iloc[[0, -1]], plan["params"]["n_candidates"]]
    np.testing.assert_allclose([*map(float, said)], known, atol=0.02)
    assert float(chance) == pytest.approx(summary["probability_covered"], abs=0.02)


@pytest.mark.parametrize("path", [README, LANDING], ids=["README", "landing page"])
def test_the_lines_of(path, judged, tmp_path, monkeypatch):
    adata = run(path, judged, tmp_path, monkeypatch)["adata"]
    plate = adata.uns["plan"]["plate"]
    names = plate.loc[plate["aim"] != "control", "perturbation"]
    assert len(names) == 8
    assert not names.str.contains("UBR5").any()
    assert plate["n_cells"].sum() == 2000
    assert names.str.contains("+", regex=False).any() == (path == README)
    if path == README:
        assert f"# a CRISPRi screen, {judged[1]:,} cells" in text_of(path)
        assert_printed(adata.uns["plan"])


def test_the_first_page(judged, tmp_path, monkeypatch):
    page = text_of(START)
    adata = run(START, judged, tmp_path, monkeypatch)["adata"]
    steps = adata.uns["preprocessing"]["steps"]
    assert f"of {judged[1]:,} cells {adata.n_obs:,} stay;" in page
    several, none = re.fullmatch(r"multi (\d+), unassigned (\d+)", steps["why"][1]).groups()
    assert f"{int(several):,} had several guides and {none} none" in page
    efficacy = adata.uns["dag_blr"]["efficacy"]
    assert f"{short(efficacy['mean'])} ± {short(efficacy['sd'])} of the mean" in page

    effects = adata.uns["perturbation_effects"]
    clear = pd.Series((effects["lfsr"] < 0.05).sum(axis=1), effects["perturbations"])
    clear = clear.sort_values(ascending=False)
    told = f"*{clear.index[0]}* ({clear.iloc[0]} of {len(effects['genes'])} genes of the panel), "
    told += ", ".join(f"*{name}* ({n})" for name, n in clear.iloc[1:4].items())
    assert f"{told} and *{clear.index[4]}* ({clear.iloc[4]})" in page
    assert_quoted(0, adata.uns["diagnosis"]["verdict"])

    ranking = adata.uns["design"]["ranking"]
    for place in (0, 1, 2, 3, -1):
        row = ranking.iloc[place]
        told = f"| {short(row['predicted_distance'])} | {interval(row)} |"
        if place == -1:
            assert f"| *doing nothing* {told} 1 | | |" in page
            continue
        shares = ("relative_distance", "probability_best", "probability_better")
        told += "".join(f" {short(row[share])} |" for share in shares)
        assert f"| {row['perturbation']} {told}" in page
    assert_quoted(1, adata.uns["plan_cells"]["verdict"])

    plate, summary = adata.uns["plan"]["plate"], adata.uns["plan"]["summary"]
    for place in (0, 1, 2, 3, -1):
        row = plate.iloc[place]
        told = f"| {row['well']} | {row['perturbation']} | {row['n_cells']} "
        told += f"| {short(row['state_distance'])} | {short(row['predicted_distance'])} "
        assert f"{told}| {interval(row)} |" in page
    assert f"| E1 to H1 | four more pairs | {plate['n_cells'].iloc[4:8].sum()} |" in page
    alone = ranking.set_index("perturbation").loc["MYC", "state_distance"]
    assert f"*MYC* alone has {short(alone)}." in page
    assert f"with probability {short(summary['probability_covered'])}," in page
    assert f"could resolve up to {100 * summary['within']:.0f} % more uncertainty" in page
