"""What a newcomer runs first, on the real screen: it gives the numbers told beside it."""

from __future__ import annotations

import ast
import importlib.util
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

    Those of the paper run on another screen, in test_the_paper.py.
    """
    every = [code for _, code in pages.blocks(path.read_text(encoding="utf-8"))]
    code = "\n".join(code for code in every if "perturb_cite_seq" not in code)
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


# Numbers, but not those of a name (OXR1), a well or a gene.
NUMBER = re.compile(r"(?<![\w.])(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)")
SURE = 3 * 2**0.5  # standard errors: the page's numbers are of other draws, wherever they were made


def short(number):
    """A number as the pages write it: two decimals."""
    return f"{number:.2f}"


def find_told(told, text, errors):
    """Where the text says this: words letter by letter, numbers but for their standard errors.

    A number without an error has to be the same, others may differ by the rounding too. Returns
    the end of the place, or -1.
    """
    numbers = NUMBER.findall(told)
    assert len(errors) == len(numbers), numbers
    pattern = f"({NUMBER.pattern})".join(map(re.escape, NUMBER.split(told)))
    for match in re.finditer(pattern, text):
        pairs = zip(numbers, match.groups(), errors, strict=True)
        if all(abs(value(one) - value(other)) <= allowed(other, e) for one, other, e in pairs):
            return match.end()
    return -1


def value(number):
    return float(number.replace(",", ""))


def allowed(number, error):
    """How far a number may be off, as the page rounds it."""
    return SURE * error + 1.01 * 10.0 ** -len(number.partition(".")[2]) if error else 0.0


def of_share(share, n):
    """The standard error of a share of n draws, that of none among them."""
    near = (share * n + 2) / (n + 4)
    return (near * (1 - near) / n) ** 0.5


def of_distance(row, n):
    """Those of a mean distance and of the ends of its 90% interval, over n draws."""
    sd = (row["predicted_high"] - row["predicted_low"]) / (2 * 1.645)
    mean, end = sd / n**0.5, sd * (0.05 * 0.95 / n) ** 0.5 / 0.103  # the density there
    return [mean, end, end]


def distance(row):
    low, high = short(row["predicted_low"]), short(row["predicted_high"])
    return f"{short(row['predicted_distance'])} | {low} to {high} |"


def of_quote(text):
    """Standard errors of the numbers of a verdict, to be compared with another on the same cells.

    Beside ``x ± s`` a quarter of s is little; a probability is a share of 1,000 draws.
    """
    errors = []
    for match in NUMBER.finditer(text):
        number, after = value(match[0]), text[match.end() :]
        spread = re.match(rf" ± ({NUMBER.pattern})", after)
        if spread or text[: match.start()].endswith("± "):
            errors.append((value(spread[1]) if spread else number) / 4 / SURE)
        else:
            drawn = re.search(r"probability $", text[: match.start()], re.I)
            errors.append(100 * of_share(number / 100, 1000) if drawn else 0.0)
    return errors


def assert_quoted(number, verdict):
    """The page's quotation is the verdict's, but for ``[...]`` left out and [words] put in."""
    verdict = " ".join(verdict.split())
    quotes = re.findall(r"(?:^> .*\n)+", START.read_text(encoding="utf-8"), re.MULTILINE)
    quote = " ".join(line.removeprefix("> ") for line in quotes[number].splitlines())
    parts = [re.sub(r"\[\w+\]", "", part).strip(" .") for part in quote.split("[...]")]
    place = 0
    for part in parts:
        end = find_told(part, verdict[place:], of_quote(part))
        assert end >= 0, f"{part!r} is not in {verdict[place:]!r}"
        place += end


def assert_printed(adata):
    """README shows the summary as it is on other machines too, and what is said of it is true."""
    (shown,) = re.findall(r"```text\n(.*?)```", README.read_text("utf-8"), re.S)
    shown = shown.removesuffix("  ...\n")
    told, printed = (" ".join(text.split()) for text in (shown, str(npt.summary(adata))))
    assert find_told(told, printed, of_quote(told)) > 0, printed
    plan, page = adata.uns["plan"], text_of(README)
    plate, summary = plan["plate"], plan["summary"]
    first, distance, control = re.findall(
        r"\*(\w+)\* is predicted to come closest .*? distance of (\S+), where the control's is "
        r"(\S+), without", page,
    )[0]  # fmt: skip
    assert first == plate["perturbation"].iloc[0]
    known = plate["state_distance"].iloc[[0, -1]]
    np.testing.assert_allclose([float(distance), float(control)], known, atol=0.02)
    assert f"None of {summary['n_not_admitted']} untested pairs is a candidate" in page
    assert plan["params"]["n_candidates"] == 13


@pytest.mark.parametrize("path", [README, LANDING], ids=["README", "landing page"])
def test_the_lines_of(path, judged, tmp_path, monkeypatch):
    adata = run(path, judged, tmp_path, monkeypatch)["adata"]
    plate = adata.uns["plan"]["plate"]
    names = plate.loc[plate["strategy"] != "control", "perturbation"]
    assert len(names) == 8
    assert not names.str.contains("UBR5").any()
    assert plate["n_cells"].sum() == 2000
    if path == README:
        assert f"# a CRISPRi screen, {judged[1]:,} cells" in text_of(path)
        assert_printed(adata)


def test_the_first_page(judged, tmp_path, monkeypatch):
    page = text_of(START)
    adata = run(START, judged, tmp_path, monkeypatch)["adata"]
    steps = adata.uns["preprocessing"]["steps"]
    assert f"of {judged[1]:,} cells {adata.n_obs:,} stay;" in page
    several, none = re.fullmatch(r"multi (\d+), unassigned (\d+)", steps["why"][1]).groups()
    assert f"{int(several):,} had several guides and {none} none" in page
    efficacy = adata.uns["dag_blr"]["efficacy"]
    told = f"{short(efficacy['mean'])} ± {short(efficacy['sd'])} of the mean"
    assert find_told(told, page, of_quote(told)) > 0, told

    effects = adata.uns["perturbation_effects"]
    clear = pd.Series((effects["lfsr"] < 0.05).sum(axis=1), effects["perturbations"])
    clear = clear.sort_values(ascending=False)
    told = f"*{clear.index[0]}* ({clear.iloc[0]} of {len(effects['genes'])} genes of the panel), "
    told += ", ".join(f"*{name}* ({n})" for name, n in clear.iloc[1:4].items())
    assert f"{told} and *{clear.index[4]}* ({clear.iloc[4]})" in page
    assert_quoted(0, adata.uns["diagnosis"]["verdict"])

    ranking, n = adata.uns["design"]["ranking"], adata.uns["design"]["params"]["n_samples"]
    nothing, by_name = ranking.iloc[-1], ranking.set_index("perturbation")
    names = re.findall(r"\| ([\w+]+) \| [\d.]+ \| [\d.]+ to [\d.]+ \| [\d.]+ \|", page)
    assert names[:2] == ranking["perturbation"].head(2).tolist()
    assert len(names) == 4
    for name in names:
        row = by_name.loc[name]
        told, errors = f"| {name} | {distance(row)}", of_distance(row, n)
        errors.append(1.5 * errors[0] / nothing["predicted_distance"])  # a ratio of two means
        shares = ("relative_distance", "probability_best", "probability_better")
        told += "".join(f" {short(row[share])} |" for share in shares)
        errors += [of_share(row[share], n) for share in shares[1:]]
        assert find_told(told, page, errors) > 0, told
    # No other is told from the last of them.
    chances, last = by_name["probability_best"], by_name.loc[names, "probability_best"].min()
    assert chances.drop(names).max() <= last + SURE * of_share(last, n)
    told = f"| *control* | {distance(nothing)} 1 | | |"
    assert find_told(told, page, [*of_distance(nothing, n), 0]) > 0, told
    assert_quoted(1, adata.uns["plan_cells"]["verdict"])

    plan = adata.uns["plan"]
    plate, summary, n = plan["plate"], plan["summary"], plan["params"]["n_samples"]
    rows = re.findall(r"\| (\w+(?:\+\w+)?) \| \d+ \|", page)
    assert len(rows) == 5
    assert rows[-1] == plate["perturbation"].iloc[-1]
    for name in rows:  # candidates about as near may change places
        row = plate.set_index("perturbation").loc[name]
        told = f"| {name} | {row['n_cells']} "
        told += f"| {short(row['state_distance'])} | {distance(row)}"
        errors = of_distance(row, n)
        assert find_told(told, page, [0, errors[0], *errors]) > 0, told
    assert f"| four more | {plate['n_cells'].iloc[4:8].sum()} |" in page
    covered = summary["probability_contains_best"]
    told = f"with probability {short(covered)}."
    assert find_told(told, page, [of_share(covered, n)]) > 0, told


def test_a_page_is_compared_word_by_word_and_number_by_number():
    page = "| MYC | 1.11 | of OXR1 | 13 of 14, by 0.05"
    assert find_told("| MYC | 1.13 | of OXR1 | 13 of 14", page, [0.01, 0, 0]) > 0
    assert find_told("| MYC | 1.18 | of OXR1 | 13 of 14", page, [0.01, 0, 0]) < 0
    assert find_told("| MYC | 1.11 | of OXR2 | 13 of 14", page, [0.01, 0, 0]) < 0
    assert find_told("| MYC | 1.11 | of OXR1 | 12 of 14", page, [0.01, 0, 0]) < 0
    assert find_told("| MYB | 1.11", page, [0.01]) < 0
    told = "error 0.60 ± 0.16; with probability 90% 7 of 1,045"
    assert [round(SURE * error, 3) for error in of_quote(told)] == [0.04, 0.04, 4.053, 0, 0]
