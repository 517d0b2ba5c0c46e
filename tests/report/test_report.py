"""What the page says, and that it is whole, safe and the same again."""

from __future__ import annotations

import base64
import csv
import io
import re
from html import unescape
from html.parser import HTMLParser

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import zarr

import nextpert as npt
from nextpert._adata.stored import with_format
from nextpert._report.measured import diagnosis_section
from nextpert._report.planned import _orders, plan_section, ranking_section, target_section
from nextpert._report.results import KINDS
from nextpert.core import find_acquisition
from nextpert.core._text import percent
from nextpert.study.plate import ADVISED

pytestmark = pytest.mark.brief_chain

TITLES = [
    "Verdict", "Next steps", "Target", "Next round", "Ranking", "Measured distances", "Effects",
    "Programs", "Graph", "Number of cells", "Replay", "Diagnostics",
    "How this was made",
]  # fmt: skip


class Page(HTMLParser):
    """Tags in their order, rows of every table by its id, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.text, self.table, self.sound = [], {}, [], None, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "table":
            self.table = self.tables.setdefault(attrs.get("id", "map"), [])
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.table[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.table = None

    def handle_data(self, data):
        self.text.append(data)
        if self.table and self.table[-1] and data.strip():
            self.table[-1][-1] += data


def read(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture
def seen(page):
    return Page(read(page))


def words(page):
    return re.sub(r"\s+", " ", unescape("".join(page.text)))


def headings(text):
    return [unescape(t) for t in re.findall(r"<h2[^>]*>([^<]+?) ?[<]", text)]


def download(text, name):
    link = re.search(rf'download="{name}\.csv" href="data:text/csv[^,]*,([^"]+)"', text)[1]
    return list(csv.DictReader(io.StringIO(base64.b64decode(link).decode("utf-8"))))


@pytest.mark.slow
def test_the_verdict_stands_first_and_says_what_to_do_and_how_far_to_trust_it(adata, seen, page):
    assert headings(read(page)) == TITLES
    said, advice = words(seen), adata.uns["plan"]["advice"]["words"]
    assert said.count(advice) == 2  # as the verdict, and as the first step
    level = {"trust": "Trust", "care": "Trust with care", "do not trust": "Do not trust"}
    assert level[adata.uns["diagnosis"]["level"]] in said
    assert said.index(advice) < said.index("Target: ")


@pytest.mark.slow
def test_the_proof_on_the_screen_is_told_and_drawn(adata, tmp_path):
    found = adata.uns["diagnosis"]
    text = read(npt.report(adata, tmp_path / "page.html"))
    drawn = [attrs["alt"] for tag, attrs in Page(text).tags if tag == "img"]
    assert sum("z-scores of negative controls" in alt for alt in drawn) == 1
    # Where nothing could be judged there is nothing to draw.
    summary = found["summary"]
    summary.loc[summary["quantity"] == "null_width", "value"] = np.nan
    section = diagnosis_section(adata, {"diagnosis": found}, {"diagnosis": "diagnosis"})
    assert section.figures == []


def rows_of(page, name):
    """The rows of a table of the page, as text by heading."""
    head, *rows = ([cell.strip() for cell in row] for row in page.tables[f"{name}-table"])
    return pd.DataFrame(rows, columns=head)


def test_tables_hold_what_the_results_hold(adata, page, seen):
    rows, plate = rows_of(seen, "plate"), adata.uns["plan"]["plate"]
    shown = rows["State distance"].str.replace(",", "").astype(float).tolist()
    assert shown == pytest.approx(plate["state_distance"].tolist(), rel=0.01, abs=1e-3)
    assert rows["Why"].tolist() == plate["why"].tolist()
    ranking = adata.uns["design"]["ranking"].query("not is_control")
    rows = seen.tables["ranking-table"][1:]
    assert [row[1] for row in rows] == ranking["perturbation"].tolist()
    first = ranking.iloc[0]
    low, high = re.search(r"\((\S+) to (\S+)\)", rows[0][2]).groups()
    assert float(low) == pytest.approx(first["predicted_low"], rel=0.06, abs=1e-3)
    assert float(high) == pytest.approx(first["predicted_high"], rel=0.06)
    assert len(download(read(page), "ranking")) == len(adata.uns["design"]["ranking"])
    wells = download(read(page), "plate")
    assert [row["perturbation"] for row in wells] == plate["perturbation"].tolist()
    assert [int(row["n_cells"]) for row in wells] == plate["n_cells"].tolist()
    effects = download(read(page), "effects")
    stored = adata.uns["perturbation_effects"]
    assert len(effects) == stored["mean"].size
    row = effects[0]
    i = list(stored["perturbations"]).index(row["perturbation"])
    j = list(stored["genes"]).index(row["gene"])
    assert float(row["mean"]) == pytest.approx(stored["mean"][i, j], rel=1e-5)
    assert abs(stored["mean"]).max() == pytest.approx(abs(float(row["mean"])), rel=1e-5)


def test_the_slider_carries_what_is_stored(adata, seen):
    design = adata.uns["design"]
    tolerances, stored = (design["as_near"][x] for x in ("tolerances", "probabilities"))
    (slider,) = (attrs for _, attrs in seen.tags if attrs.get("type") == "range")
    start = int(slider["value"])
    assert tolerances[start] == pytest.approx(design["advice"]["tolerance"])
    assert slider["data-positions"].split("|") == [f"{100 * x:g}%" for x in tolerances]
    assert int(slider["max"]) == len(tolerances) - 1
    values, texts = (slider[f"data-{x}"].split("|") for x in ("values", "texts"))
    assert texts == [percent(float(x)) for x in values]
    places = [attrs["data-places"].split() for _, attrs in seen.tags if "data-places" in attrs]
    carried = np.array([[float(values[int(x)]) for x in row] for row in places])
    np.testing.assert_allclose(carried, stored[:-1], rtol=1e-5)
    rows = rows_of(seen, "ranking")
    title = f"P(within {100 * tolerances[start]:g}% of nearest)"
    assert rows.columns[int(slider["data-column"])] == title
    assert rows[title].tolist() == [percent(x) for x in stored[:-1, start]]


def test_a_design_without_tolerances_has_no_slider(adata):
    design = adata.uns["design"]
    del design["as_near"]
    section = ranking_section({"design": design})
    assert not any("Not ranked" in words for words in section.words)
    (table,) = section.tables
    assert table.slider is None
    assert not any("P(within" in column.head for column in table.columns)


def test_every_table_can_be_filtered_and_sorted(seen):
    n_rows = {name: len(rows) - 1 for name, rows in seen.tables.items()}
    filters = [attrs for tag, attrs in seen.tags if attrs.get("type") == "search"]
    assert len(filters) == sum(n > 1 for n in n_rows.values())
    tags = [tag for tag, _ in seen.tags]
    heads = [i for i, (tag, attrs) in enumerate(seen.tags) if attrs.get("scope") == "col"]
    assert {tags[i + 1] for i in heads} == {"button"}


@pytest.mark.parametrize(("label", "is_listed"), [("B+A", False), ("enhancer 7", True)])
def test_target_genes_are_listed_where_labels_do_not_tell_them(adata, label, is_listed):
    plan = adata.uns["plan"]
    plan["plate"].loc[0, ["perturbation", "target_genes"]] = [label, "A, B"]
    heads = [column.head for column in plan_section({"plan": plan}).tables[0].columns]
    assert ("Target genes" in heads) == is_listed


def test_the_target_lists_the_genes_that_change():
    genes = ["A", "B", "C"]
    results = {
        "plan_cells": {"params": {}},
        "design": {"params": {"target": "x"}, "genes": genes, "target_mean": np.array([1, 2, 5.0])},
        "dag_blr": {"genes": genes, "control_mean": np.array([1, 3, 9.0])},
    }
    (table,) = target_section(results).tables
    assert table.frame[["gene", "change"]].to_numpy().tolist() == [["C", -4.0], ["B", -1.0]]
    assert len(table.download) == 3
    results["dag_blr"]["genes"] = ["A", "B", "D"]
    assert not target_section(results).tables


def test_the_ranking_says_by_what(adata):
    design = adata.uns["design"]
    name = str(design["params"]["acquisition"])
    for by, words in ((name, find_acquisition(name).in_words), ("my_own", "my_own")):
        design["params"]["acquisition"] = by
        assert f"ranked by {words}. " in ranking_section({"design": design}).words[0]


def test_controls_are_neither_constructs_nor_a_strategy(adata):
    plan = adata.uns["plan"]
    for asked in ("exploit", ADVISED):
        plan["params"]["strategy"] = asked
        is_control = plan["plate"]["strategy"].astype(str) == "control"
        plan["plate"]["strategy"] = np.where(is_control, "control", "exploit")
        plate, constructs = plan_section({"plan": plan}).tables
        assert ("by strategy 'exploit'" in plate.caption) == (asked == "exploit")
        assert "strategy" not in plate.names
        assert is_control.any()
        assert set(constructs.frame["kind"]) == set(plan["constructs"]["kind"]) - {"control"}
        assert "control" in set(constructs.download["kind"])
    kinds = pd.DataFrame(
        {"kind": ["control", "knockout", "knockout"], "status": ["existing", "clone", "existing"]}
    )
    assert _orders(kinds) == "Of 2 constructs, clone from guides of this screen 1, reuse 1"


def test_what_it_was_made_of_is_told(seen):
    said = words(seen)
    assert "nextpert demo --seed 0" in said
    options = {row[0]: row[4] for row in seen.tables["options-table"][1:]}
    assert {row[3] for row in seen.tables["options-table"][1:]} == {"0", "–"}
    assert {row[2] for row in seen.tables["options-table"][1:]} == {npt.__version__}
    assert set(options) == {"tl.fit_dag_blr", *(kind.function for kind in KINDS.values())}
    assert "n_perturbations = 3" in options["tl.plan_screen"]


def test_results_that_are_absent_are_named_and_the_cells_are_not_changed(adata, tmp_path):
    for key in ("replay", "diagnosis", "plan", "dag"):
        del adata.uns[key]
    before = adata.copy()
    plt.close("all")
    text = read(npt.report(adata, tmp_path / "page.html"))
    assert plt.get_fignums() == []
    assert list(adata.uns) == list(before.uns)
    assert adata.obs.equals(before.obs)
    said = words(Page(text))
    for function in ("tl.replay_design", "tl.diagnose", "tl.plan_screen"):
        assert f"run nextpert.{function}" in said
    assert "was not checked: run tl.diagnose" in said
    assert not {"Replay", "Diagnostics", "Next round"} & set(headings(text))


@pytest.mark.parametrize("name", KINDS)
def test_each_result_makes_a_page_alone(adata, tmp_path, name):
    adata.uns = {name: adata.uns[name]}
    page = npt.report(adata, tmp_path / "page.html")
    assert len(headings(read(page))) >= 3


def test_nothing_to_report_or_a_damaged_result_is_an_error_and_writes_nothing(adata, tmp_path):
    plan = adata.uns["plan"]
    adata.uns = {"dag_blr": adata.uns["dag_blr"], "plan": "tomorrow", "design": {"of": "others"}}
    with pytest.raises(ValueError, match=r"no result.*tl\.learn_dag.*tl\.plan_screen"):
        npt.report(adata, tmp_path / "page.html")
    adata.uns = {"plan": {k: v for k, v in plan.items() if k != "summary"}}
    with pytest.raises(ValueError, match=r"damaged.*run tl\.plan_screen again"):
        npt.report(adata, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_keys_name_other_results(adata, tmp_path):
    adata.uns = {"second": adata.uns["plan"], "design": adata.uns["design"]}
    without = npt.report(adata, tmp_path / "a.html")
    assert "Next round" not in headings(read(without))
    page = npt.report(adata, tmp_path / "b.html", keys={"plan": "second"})
    assert "Next round" in headings(read(page))
    with pytest.raises(ValueError, match=r"'third' for plan.* run tl\.plan_screen first"):
        npt.report(adata, tmp_path / "c.html", keys={"plan": "third"})
    with pytest.raises(ValueError, match=r"unknown names: plann\. Close matches: plan"):
        npt.report(adata, tmp_path / "c.html", keys={"plann": "third"})


@pytest.mark.slow
def test_names_are_text_wherever_they_stand(adata, tmp_path, described_anew):
    evil = "<script>alert('x')</script>\"&'"
    gene = str(adata.uns["plan"]["plate"]["target_genes"].iloc[0])
    label = str(adata.uns["plan"]["plate"]["perturbation"].iloc[0])

    def renamed(value):
        if isinstance(value, dict):
            return {k: v if k == "contents" else renamed(v) for k, v in value.items()}
        if hasattr(value, "columns"):
            return value.replace({gene: evil, label: evil})
        if isinstance(value, np.ndarray) and value.dtype == object:
            return np.array([evil if x in (gene, label) else x for x in value], dtype=object)
        return value

    uns = {key: renamed(value) for key, value in adata.uns.items()}
    adata.var_names = [evil if name == gene else name for name in adata.var_names]
    adata.obs["perturbation"] = [evil if x == label else x for x in adata.obs["perturbation"]]
    for stored in uns.values():
        if "contents" in stored:
            described_anew(stored)
    adata.uns = uns
    text = read(npt.report(adata, tmp_path / "page.html", title=evil, command=evil))
    assert text.count("<script>") == 1
    assert text.count(evil) == 0
    page = Page(text)
    assert page.tables["plate-table"][1][0] == evil
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_nothing_is_loaded_from_elsewhere_and_it_is_built_for_ears_too(page, seen):
    for tag, attrs in seen.tags:
        for name in ("src", "href"):
            link = attrs.get(name, "#")
            assert link.startswith(("#", "data:")), (tag, link)
    text = read(page)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "url(" not in text
    assert "@import" not in text
    tags = [tag for tag, _ in seen.tags]
    assert [tags.count(t) for t in ("h1", "main", "nav", "header", "footer")] == [1] * 5
    for i, (tag, attrs) in enumerate(seen.tags):
        if tag == "table":
            assert tags[i + 1] == "caption"
        if tag == "th":
            assert attrs["scope"] in ("col", "row")
        if tag == "img":
            assert len(attrs["alt"]) > 30
        if tag == "svg":
            assert attrs["aria-hidden"] == "true"  # the numbers stand beside it


@pytest.mark.slow
def test_large_results_stay_below_3_mb(with_long_ranking, tmp_path):
    adata = with_long_ranking(100)
    plain = adata.uns["perturbation_effects"]
    ranking = adata.uns["design"]["ranking"].iloc[:-1]
    n, p = 400, 1000
    big = {x: np.resize(plain[x], (n, p)) for x in plain if np.ndim(plain[x]) == 2}
    big |= {
        "perturbations": np.array([f"KO{i}" for i in range(n)], dtype=object),
        "genes": np.array([f"GENE{i}" for i in range(p)], dtype=object),
        "in_graph": np.ones(p, bool),
        "n_cells": np.full(n, 50),
        "params": plain["params"],
    }
    adata.uns["perturbation_effects"] = with_format(big)
    page = npt.report(adata, tmp_path / "page.html")
    assert page.stat().st_size < 3e6
    text = read(page)
    assert f"The first 300 of {len(ranking)} rows" in text
    assert text.count("data-places=") == 300
    cut = re.search(r'download="effects.csv"[^>]*>Download csv \(first (\d+) rows\)', text)
    rows = download(text, "effects")
    assert len(rows) == int(cut[1]) > 500
    largest = np.sort(np.abs(big["mean"]).ravel())[::-1][: len(rows)]
    np.testing.assert_allclose([abs(float(r["mean"])) for r in rows], largest, rtol=1e-5)
    assert f"The first 300 of {int((big['lfsr'] < 0.05).sum())} rows" in text


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("kind", [pytest.param("h5ad", marks=pytest.mark.formats), "zarr"])
def test_the_same_results_give_the_same_bits(adata, page, tmp_path, kind):
    """Whatever file they are in, and whatever style the user has set."""
    if kind == "h5ad":
        adata.write_h5ad(tmp_path / "screen.h5ad")
        again = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    else:
        store = zarr.storage.MemoryStore()
        adata.write_zarr(store)
        again = ad.read_zarr(store)
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        path = npt.report(again, tmp_path / "b.html", command="nextpert demo --seed 0")
    assert path.read_bytes() == page.read_bytes()
