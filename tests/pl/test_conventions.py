"""What all plots share: scanpy's conventions, files, clear errors, and data left alone."""

import inspect
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
import scanpy as sc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nextpert as npt

PLOTS = [getattr(npt.pl, name) for name in npt.pl.__all__]
names = [plot.__name__ for plot in PLOTS]


@pytest.fixture(autouse=True)
def _same_autoshow():
    before = sc.settings.autoshow
    yield
    sc.settings.autoshow = before


@pytest.mark.parametrize("plot", PLOTS, ids=names)
def test_signature(plot):
    parameters = inspect.signature(plot).parameters
    for name, default in {"show": None, "return_fig": False, "save": None}.items():
        assert parameters[name].default is default
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional] == ["adata"]


@pytest.mark.parametrize("plot", PLOTS, ids=names)
def test_returns_figure_axes_or_nothing_and_leaves_adata_alone(
    plot, designed, monkeypatch, assert_same_adata
):
    shown, before = [], designed.copy()
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert isinstance(plot(designed, return_fig=True), Figure)
    axes = plot(designed, show=False)
    assert all(isinstance(ax, Axes) for ax in (axes if isinstance(axes, list) else [axes]))
    assert not shown
    assert plot(designed, show=True) is None
    assert len(shown) == 1
    for is_on in (True, False):
        sc.settings.autoshow = is_on
        assert (plot(designed) is None) == is_on
        assert len(shown) == 2
    assert_same_adata(designed, before)


@pytest.mark.parametrize(
    ("plot", "options"), [*((p, {}) for p in PLOTS), (npt.pl.diagnose, {"panel": "checks"})]
)
def test_nothing_is_cut_off_and_texts_do_not_overlap(
    plot, options, designed, overlaps, tick_labels
):
    figure = plot(designed, return_fig=True, **options)
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.03, (box, width, height)
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    texts = [*figure.texts, *(text for legend in legends for text in legend.get_texts())]
    for ax in [part for host in figure.axes for part in (host, *host.child_axes) if part.axison]:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        texts += [t for axis in (ax.xaxis, ax.yaxis) for t in tick_labels(axis)]
    assert overlaps([t for t in texts if t.get_visible()], figure) == []


@pytest.mark.parametrize("plot", [p for p in PLOTS if "ax" in inspect.signature(p).parameters])
def test_draws_on_the_axes_given_and_does_not_show_them(plot, designed, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    sc.settings.autoshow = True
    figure, ax = plt.subplots()
    before = len(plt.get_fignums())
    assert plot(designed, ax=ax) is ax
    assert len(plt.get_fignums()) == before
    assert figure.axes == [ax]
    assert ax.has_data() or ax.texts
    whole = plt.figure()
    ax = whole.subfigures(1, 2)[1].subplots()
    assert plot(designed, ax=ax, return_fig=True) is whole


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_saves_whole_files(designed, tmp_path, suffix):
    path = tmp_path / "new" / f"figure.{suffix}"
    npt.pl.diagnose(designed, panel="checks", save=path, show=False)
    assert path.read_bytes()[:4] in (b"\x89PNG", b"%PDF")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "where", "function"),
    [
        ("cpca_density", "obsm X_cpca", "cpca"),
        ("dag", "varp dag", "learn_dag"),
        ("dag_fit", "uns dag_fit", "dag_fit"),
        ("design", "uns design", "design_interventions"),
        ("diagnose", "uns diagnosis", "diagnose"),
        ("effects_heatmap", "uns perturbation_effects", "perturbation_effects"),
        ("perturbation_effects", "uns perturbation_effects", "perturbation_effects"),
        ("plan_cells", "uns plan_cells", "plan_cells"),
        ("plan_screen", "uns plan", "plan_screen"),
        ("programs", "uns perturbation_effects", "perturbation_effects"),
        ("replay", "uns replay", "replay_design"),
        ("state_map", "uns perturbation_effects", "perturbation_effects"),
        ("target_distances", "uns target_distances", "target_distances"),
        ("volcano", "uns perturbation_effects", "perturbation_effects"),
    ],
)
def test_a_missing_result_names_the_function_to_run_first(designed, name, where, function):
    (slot, key), plot = where.split(), getattr(npt.pl, name)
    del getattr(designed, slot)[key]
    with pytest.raises(ValueError, match=rf"(?s){key}.*run tl\.{function} first"):
        plot(designed)
    with pytest.raises(ValueError, match="'mine'"):
        plot(designed, key="mine")
    assert not plt.get_fignums()


@pytest.mark.parametrize("plot", [npt.pl.expression_shift, npt.pl.perturbation_counts])
def test_plots_of_the_cells_themselves_name_absent_labels(designed, plot):
    with pytest.raises(ValueError, match="no column 'mine'"):
        plot(designed, perturbation_key="mine")
    with pytest.raises(ValueError, match="No control cells"):
        plot(designed, control="mine")
    assert not plt.get_fignums()


def test_importing_the_package_loads_no_plotting():
    code = (
        "import sys, nextpert, nextpert.pl, nextpert.datasets; "
        "print([m for m in ('matplotlib', 'seaborn', 'scanpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
