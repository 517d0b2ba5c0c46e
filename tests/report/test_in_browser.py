"""The page as a browser shows it: nothing cut off, no request, and what is clicked works."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import nextpert as npt
from nextpert._report.tables import number
from nextpert.core._text import percent

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium of the system without a window."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, page):
    """Open the report; what it asked for and complained of is in ``asked`` and ``said``."""
    contexts = []

    def opened(width=1280, scheme="light", **options):
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, **options))
        contexts[-1].set_default_timeout(180_000)  # ms: machines that do much else are slow
        shown = contexts[-1].new_page()
        shown.asked, shown.said = [], []
        shown.on("request", lambda request: shown.asked.append(request.url))
        shown.on("console", lambda message: shown.said.append(message.text))
        shown.on("pageerror", lambda error: shown.said.append(str(error)))
        shown.goto(page.as_uri())
        return shown

    yield opened
    for context in contexts:
        context.close()


def values(shown, table, number):
    rows = f"#{table}-table tbody tr"
    return shown.eval_on_selector_all(
        rows, f"rows => rows.map(row => row.cells[{number - 1}].dataset.v)"
    )


def test_it_asks_for_nothing_and_complains_of_nothing(open_page, page):
    shown = open_page()
    shown.wait_for_load_state("networkidle")
    assert [url for url in shown.asked if not url.startswith("data:")] == [page.as_uri()]
    assert shown.said == []
    assert shown.eval_on_selector_all("img", "all => all.every(i => i.naturalWidth > 100)")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(open_page, width):
    shown = open_page(width)
    assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    beyond = shown.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter(e => !e.closest(".scroll > *") && !e.matches(".skip")
                && (e.getBoundingClientRect().right > window.innerWidth + 0.5
                    || (e.scrollWidth > e.clientWidth + 1 && e.clientWidth
                        && !e.matches(".scroll, html, body"))))
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert beyond == []
    inside = "wells => wells.filter(w => w.scrollWidth > w.clientWidth + 1).length"
    assert shown.eval_on_selector_all(".well", inside) == 0


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_can_be_read_by_ear_and_by_weak_eyes(open_page, width, scheme):
    shown = open_page(width, scheme)
    found = axe.Axe().run(shown)
    assert found.violations_count == 0, found.generate_report()


def test_tables_are_sorted_by_click_and_by_key(open_page):
    shown = open_page()
    head = shown.locator("#ranking-table thead th", has_text="Measured distance")
    number = 1 + head.evaluate("th => th.cellIndex")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    found = values(shown, "ranking", number)
    seen = [float(x) for x in found if x]
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert found[: len(seen)] == [x for x in found if x]  # what has no value comes last
    head.get_by_role("button").focus()
    shown.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(x) for x in values(shown, "ranking", number) if x] == seen[::-1]
    other = shown.locator("#ranking-table thead th", has_text="Perturbation")
    other.get_by_role("button").click()
    names = shown.locator("#ranking-table tbody th").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    assert head.get_attribute("aria-sort") is None


def test_tables_are_searched(open_page, adata):
    shown = open_page()
    ranking = adata.uns["design"]["ranking"].query("not is_control")
    name = ranking["perturbation"].iloc[-1]
    box = shown.locator("#ranking").get_by_role("searchbox").first
    box.fill(name.lower())
    rows = shown.locator("#ranking-table tbody tr:visible")
    assert name in rows.all_inner_texts()[0]
    assert rows.count() < len(ranking)
    told = shown.locator("#ranking .count").first.inner_text()
    assert told == f"{rows.count()} of {len(ranking)} rows"
    shown.emulate_media(media="print")  # what was searched is what is printed
    assert shown.locator("#ranking-table tbody tr:visible").count() == 1
    shown.emulate_media(media="screen")
    box.fill("")
    assert rows.count() == len(ranking)


def by_js(shown, position):
    """Move the slider, and return heading, order of rows, and texts of its column."""
    slider = shown.locator("#ranking").get_by_role("slider")
    slider.fill(str(position))
    column = int(slider.get_attribute("data-column"))
    head = shown.locator("#ranking-table thead th").nth(column)
    assert head.get_attribute("aria-sort") == "descending"
    assert head.get_attribute("data-head") == head.inner_text().strip()
    names = shown.locator("#ranking-table tbody th").all_inner_texts()
    texts = shown.locator(f"#ranking-table tbody tr > :nth-child({column + 1})").all_inner_texts()
    return head.get_attribute("data-head"), names, texts


def test_a_slider_ranks_candidates_by_a_tolerance(open_page, adata):
    shown = open_page()
    design = adata.uns["design"]
    names = design["ranking"]["perturbation"].to_numpy(str)[:-1]
    orders = set()
    for position, tolerance in enumerate(design["as_near"]["tolerances"]):
        values = design["as_near"]["probabilities"][:-1, position]
        order = np.argsort(-values, kind="stable")
        head, shown_names, texts = by_js(shown, position)
        assert head == f"P(within {100 * tolerance:g}% of nearest)"
        assert shown_names == names[order].tolist()
        assert texts == [percent(x) for x in values[order]]
        orders.add(tuple(shown_names))
    assert len(orders) > 1
    told = shown.locator("#ranking output").inner_text()
    assert told == "50% of the control's distance"
    shown.locator("#ranking").get_by_role("slider").press("ArrowLeft")
    assert shown.locator("#ranking output").inner_text() == "49% of the control's distance"
    assert shown.said == []


def test_on_a_phone_the_slider_shows_names_and_values(open_page):
    shown = open_page(390)
    by_js(shown, 20)
    for cell in ("thead th[aria-sort]", "tbody tr:first-child th"):
        box = shown.locator(f"#ranking-table {cell}").bounding_box()
        assert box["x"] >= 0, cell
        assert box["x"] + box["width"] <= 390, cell


def test_tables_are_filtered_by_conditions(open_page, adata):
    shown = open_page()
    ranking = adata.uns["design"]["ranking"].query("not is_control")
    box = shown.locator("#ranking").get_by_role("searchbox")
    rows = shown.locator("#ranking-table tbody tr:visible")
    share = ranking["probability_best"]
    for text, found in (
        ("P(nearest) > 5%", share > 0.05),
        ("p(nearest)<=0.05", share <= 0.05),
        ("Cells so far = 0 and rank >= 3", (ranking["n_cells_seen"] == 0) & (ranking["rank"] >= 3)),
        ("measured > 0", ranking["measured_distance"] > 0),
    ):
        box.fill(text)
        assert 0 < found.sum() < len(found)
        names = rows.locator("th").all_inner_texts()
        assert names == ranking.loc[found, "perturbation"].tolist(), text
    box.fill("Rank > ")  # not a condition yet: a text that no row has
    assert rows.count() == 0


def test_labels_are_text_for_the_slider_and_the_filter(open_page, adata, tmp_path):
    evil = "<script>document.title='x'</script>|\"&'"
    ranking = adata.uns["design"]["ranking"]
    ranking.loc[0, "perturbation"] = evil
    shown = open_page()
    shown.goto(npt.report(adata, tmp_path / "page.html").as_uri())
    title = shown.title()
    assert evil in by_js(shown, 50)[1]
    shown.locator("#ranking").get_by_role("searchbox").fill(evil[:8])
    assert shown.locator("#ranking-table tbody th:visible").all_inner_texts() == [evil]
    assert shown.title() == title
    assert shown.said == []


@pytest.mark.parametrize("width", [1280, 390])
def test_values_are_shown_where_the_mouse_is(open_page, adata, width):
    shown = open_page(width)
    spot = shown.locator("#effects .spots rect").first
    spot.scroll_into_view_if_needed()
    spot.hover()
    title = shown.evaluate("document.querySelector('.spots rect:hover > title').textContent")
    stored = adata.uns["perturbation_effects"]
    perturbation, gene = re.match(r"(.+) \(.*\), (.+):", title).groups()
    i = list(stored["perturbations"]).index(perturbation)
    j = list(stored["genes"]).index(gene)
    assert title.endswith(f": {number(stored['mean'][i, j])}")
    cell = shown.locator("#ranking-table tbody td", has_text="%").first
    cell.hover()
    relative = adata.uns["design"]["ranking"]["relative_distance"].iloc[0]
    assert cell.get_attribute("title") == f"Relative to control: {relative:.6g}"
    assert shown.said == []


def test_without_javascript_no_control_is_seen(open_page):
    shown = open_page(java_script_enabled=False)
    assert shown.locator("#ranking-table tbody tr:visible").count() > 2
    assert shown.locator("input:visible, output:visible").count() == 0


def test_it_prints_on_three_pages(open_page):
    shown = open_page(scheme="dark")
    pages = shown.pdf(prefer_css_page_size=True)
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", pages)) <= 3
    box = re.search(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", pages)
    assert [round(float(x)) for x in box.groups()] == [595, 842]
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.locator("input:visible, output:visible, .tools:visible").count() == 0
    assert shown.locator("#target-means-table tbody tr:visible").count() == 4  # of 8 on the screen
    assert not shown.locator("#effects-table").is_visible()
    ink = "e => getComputedStyle(e).color"
    assert shown.locator("h1").evaluate(ink) == "rgb(27, 32, 38)"  # black on white


def test_long_tables_are_shown_from_their_start_and_whole_on_demand(
    open_page, with_long_ranking, tmp_path
):
    adata = with_long_ranking(4)
    many = adata.uns["design"]["ranking"].iloc[:-1]
    shown = open_page()
    shown.goto(npt.report(adata, tmp_path / "page.html").as_uri())
    visible = shown.locator("#ranking-table tbody tr:visible")
    assert visible.count() == 20 < len(many)
    unfold = shown.locator("#ranking").get_by_role("button", name=f"Show all {len(many)} rows")
    unfold.click()
    assert visible.count() == len(many)
    assert unfold.count() == 0
    # Nothing of a table is cut: its frame is as high as its rows.
    inside = "e => e.scrollHeight <= e.clientHeight + 1"
    assert all(frame.evaluate(inside) for frame in shown.locator(".table .scroll").all())
    shown.emulate_media(media="print")
    assert visible.count() == 10
