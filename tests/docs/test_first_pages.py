"""What a newcomer runs first, on the real screen: it gives the numbers told beside it."""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import partial
from itertools import takewhile
from pathlib import Path

import pandas as pd
import pytest

import nextpert as npt

pytestmark = [
    pytest.mark.screen,
    pytest.mark.filterwarnings("ignore:Perturbations without a target on the panel"),
    pytest.mark.docs,
    pytest.mark.full_chain,  # numbers are those that users get
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
    """The statements of a page's Python, one by one and without comments.

    Those of other screens run elsewhere: of the paper in test_the_paper.py, of the first question
    below.
    """
    every = [code for _, code in pages.blocks(path.read_text(encoding="utf-8"))]
    others = ("perturb_cite_seq", "papalexi_2021")
    code = "\n".join(code for code in every if not any(name in code for name in others))
    return [ast.unparse(statement) for statement in ast.parse(code).body]


def shared():
    """The calls that README and landing page begin with; the first page makes them too."""
    pairs = zip(statements(README), statements(LANDING), strict=False)
    same = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return same[: same.index("npt.tl.diagnose(adata)") + 1]


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


def told(words, text):
    """Where a text ends that says this: word by word, numbers to 5% or 0.05; -1 if it does not."""
    pattern = f"({pages.NUMBER.pattern})".join(map(re.escape, pages.NUMBER.split(words)))
    return next((m.end() for m in re.finditer(pattern, text) if pages.alike(words, m[0])), -1)


def cells(*numbers):
    """Numbers as the page's tables have them."""
    return " | ".join(f"{number:.2f}" for number in numbers)


def interval(row):
    return f"{row['predicted_low']:.2f} to {row['predicted_high']:.2f}"


def assert_quoted(number, verdict):
    """The page's quotation is the verdict's, but for ``[...]`` left out and [words] put in."""
    verdict = " ".join(verdict.split())
    quotes = re.findall(r"(?:^> .*\n)+", START.read_text(encoding="utf-8"), re.MULTILINE)
    quote = " ".join(line.removeprefix("> ") for line in quotes[number].splitlines())
    for part in quote.split("[...]"):
        end = told(re.sub(r"\[\w+\]", "", part).strip(" ."), verdict)
        assert end >= 0, f"{part!r} is not in {verdict!r}"
        verdict = verdict[end:]


def assert_printed(adata):
    """README shows the summary, and what is said of it is true."""
    (shown,) = re.findall(r"```text\n(.*?)```", README.read_text("utf-8"), re.S)
    shown = " ".join(shown.removesuffix("  ...\n").split())
    printed = " ".join(str(npt.summary(adata)).split())
    assert told(shown, printed) > 0, printed
    summary = adata.uns["plan"]["summary"]
    npt.tl.design_interventions(adata, "UBR5")
    ranking = adata.uns["design"]["ranking"]
    first, last = ranking.iloc[0], ranking.iloc[-1]
    near, control = cells(first["predicted_distance"]), cells(last["predicted_distance"])
    shown = f"*{first['perturbation']}* is predicted to come closest to the state of *UBR5*: "
    shown += f"to a squared distance of {near} (90% interval {interval(first)}), where the "
    assert told(f"{shown}control's is {control}, without", text_of(README)) > 0
    of_pairs = f"none of the {summary['n_not_admitted']} pairs is."
    assert of_pairs in text_of(README)


def test_the_first_question(screen_path, tmp_path, monkeypatch):
    """The six lines give the answer below them."""
    file = screen_path / "papalexi_thp1" / "papalexi_lowmoi.h5ad"
    if not file.is_file():
        pytest.skip("the screen of Papalexi is not in the folder of the real screens")
    text = README.read_text(encoding="utf-8")
    (code,) = [code for _, code in pages.blocks(text) if "papalexi_2021" in code]
    load = partial(npt.datasets.papalexi_2021, file)
    monkeypatch.setattr(npt.datasets, "papalexi_2021", load)
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(code, space)
    adata = space["adata"]
    advice = adata.uns["plan"]["advice"]
    assert advice["kind"] == "confirm what you have"
    npt.tl.design_interventions(adata, "IFNGR1")
    ranking = adata.uns["design"]["ranking"].set_index("perturbation")
    shares = (100 * ranking["relative_distance"]).round().astype(int)
    plate = adata.uns["plan"]["plate"].set_index("perturbation")["n_cells"]
    assert advice["perturbations"].tolist() == ["JAK2", "IFNGR2", "STAT1"]
    assert set(plate.drop("control")) == {30}
    assert len(pd.read_csv("order.csv")) > 0
    answer = (
        f"**JAK2 leaves {shares['JAK2']}% of the control's squared distance, IFNGR2 "
        f"{shares['IFNGR2']}%. Order nothing new; confirm them, and STAT1, with 30 cells each.**"
    )
    for path in (README, LANDING):
        assert answer in text_of(path)
        assert f"Which of {len(ranking) - 1} other knockouts" in text_of(path)


@pytest.mark.parametrize("path", [README, LANDING], ids=["README", "landing page"])
def test_the_lines_of(path, judged, tmp_path, monkeypatch):
    adata = run(path, judged, tmp_path, monkeypatch)["adata"]
    plate = adata.uns["plan"]["plate"]
    names = plate.loc[plate["strategy"] != "control", "perturbation"]
    assert names.tolist() == adata.uns["plan"]["advice"]["perturbations"].tolist()
    assert adata.uns["plan"]["advice"]["best_known"] == "DSCC1"
    if path == README:
        assert f"# a CRISPRi screen, {judged[1]:,} cells" in text_of(path)
        assert_printed(adata)


def test_the_first_page(judged, tmp_path, monkeypatch):
    page = text_of(START)
    space = run(START, judged, tmp_path, monkeypatch)
    adata = space["adata"]
    steps = adata.uns["preprocessing"]["steps"]
    assert f"of {judged[1]:,} cells {adata.n_obs:,} stay;" in page
    several, none = re.fullmatch(r"multi (\d+), unassigned (\d+)", steps["why"][1]).groups()
    assert f"{int(several):,} had several guides and {none} none" in page
    efficacy = adata.uns["dag_blr"]["efficacy"]
    assert told(f"{efficacy['mean']:.2f} ± {efficacy['sd']:.2f} of its mean", page) > 0

    effects = adata.uns["perturbation_effects"]
    clear = pd.Series((effects["lfsr"] < 0.05).sum(axis=1), effects["perturbations"])
    clear = clear.sort_values(ascending=False)
    said = f"*{clear.index[0]}* ({clear.iloc[0]} of {len(effects['genes'])} genes of the panel), "
    said += ", ".join(f"*{name}* ({n})" for name, n in clear.iloc[1:4].items())
    assert f"{said} and *{clear.index[4]}* ({clear.iloc[4]})" in page
    assert_quoted(0, adata.uns["diagnosis"]["verdict"])

    ranking = adata.uns["design"]["ranking"].set_index("perturbation")
    names = re.findall(r"\| ([\w+]+) \| [\d.]+ \| [\d.]+ to [\d.]+ \| [\d.]+ \|", page)
    assert names[:2] == ranking.index[:2].tolist()
    assert len(names) == 4
    for name in names:
        row = ranking.loc[name]
        shares = row[["relative_distance", "probability_best", "probability_better"]]
        line = (
            f"| {name} | {cells(row['predicted_distance'])} | {interval(row)} | {cells(*shares)} |"
        )
        assert told(line, page) > 0, line
    nothing = ranking.iloc[-1]
    line = f"| *control* | {cells(nothing['predicted_distance'])} | {interval(nothing)} | 1 | | |"
    assert told(line, page) > 0, line
    assert_quoted(1, adata.uns["plan_cells"]["verdict"])

    plate = adata.uns["plan"]["plate"]
    rows = re.findall(r"\| (\w+(?:\+\w+)?) \| \d+ \|", page)
    assert len(rows) == 5
    assert rows[-1] == plate["perturbation"].iloc[-1]
    for name in rows:  # candidates about as near may change places
        row = plate.set_index("perturbation").loc[name]
        near = cells(row["state_distance"], row["predicted_distance"])
        line = f"| {name} | {row['n_cells']} | {near} | {interval(row)} |"
        assert told(line, page) > 0, line
    words = {1: "one", 2: "two", 3: "three", 4: "four"}[len(plate) - 5]
    assert f"| {words} more | {plate['n_cells'].iloc[4:-1].sum()} |" in page
    covered = adata.uns["plan"]["summary"]["probability_contains_best"]
    said = f"contains the best of all 13 candidates with a probability of {covered:.2f}"
    assert told(said, page) > 0
    assert told(str(space["campaign"].pending), page) > 0


def test_a_page_is_compared_word_by_word_and_number_by_number():
    page = "| MYC | 1.11 | of OXR1 | 13 of 14, by 0.05"
    assert told("| MYC | 1.13 | of OXR1 | 13 of 14", page) > 0
    assert told("| MYC | 1.18 | of OXR1 | 13 of 14", page) < 0
    assert told("| MYC | 1.11 | of OXR2 | 13 of 14", page) < 0
    assert told("| MYC | 1.11 | of OXR1 | 12 of 14", page) < 0
