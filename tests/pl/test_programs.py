"""Programs and what is drawn of them."""

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.stored import with_format
from nextpert.pl import _programs, programs


def with_programs(adata, n=2):
    """Put in programs of 12 perturbations: the first three on each, the next one the other way."""
    rng, tables = np.random.default_rng(0), {}
    stored = {k: v for k, v in adata.uns["perturbation_effects"].items() if k not in STAMP}
    for name, column, value, values in (
        ("scores", "perturbation", "score", [1.0, 0.8, 0.6, -0.5, *np.linspace(0.1, -0.1, 8)]),
        ("genes", "gene", "effect", [-1.5, 1.0, 0.8, *np.linspace(0.2, -0.2, 27)]),
    ):
        sd, names = rng.uniform(0.05, 0.1, len(values)), [f"{name}{i}" for i in range(len(values))]
        each = pd.DataFrame({column: names, value: values, "sd": sd})
        each = each.iloc[np.argsort(-each[value].abs(), kind="stable")]
        tables[name] = pd.concat([each.assign(program=k) for k in range(1, n + 1)])
    tables["scores"]["takes_part"] = tables["scores"]["score"].abs() > 0.25
    shares = pd.DataFrame({"program": range(1, n + 1), "share": np.linspace(0.5, 0.1, n)})
    stored["programs"] = tables | {"shares": shares.assign(n_perturbations=4)}
    adata.uns["perturbation_effects"] = with_format(stored)
    return stored["programs"]


STAMP = {"format", "version", "contents"}


def labels(panel):
    return [label.get_text() for label in panel.get_yticklabels()]


def test_rows_keep_their_height_in_inches(designed, monkeypatch):
    with_programs(designed)
    rows = []
    monkeypatch.setattr(_programs, "_draw_values", lambda *given: rows.append(given[-1]))
    programs(designed, show=False)
    np.testing.assert_allclose(rows, [_programs._ROW] * 4, rtol=0.3)


def test_scores_and_effects_are_drawn_with_intervals(designed):
    stored = with_programs(designed)
    axes = programs(designed, show=False)
    assert len(axes) == 6
    for number, host, left, right in zip((1, 2), axes[::3], axes[1::3], axes[2::3], strict=True):
        share = stored["shares"]["share"].iloc[number - 1]
        assert host.get_title() == f"program {number}: {100 * share:.0f}% of the effects"
        for panel, table, name, value, most in (
            (left, "scores", "perturbation", "score", 4), (right, "genes", "gene", "effect", 3)
        ):  # fmt: skip
            rows = stored[table].query("program == @number").head(10)
            rows = rows.sort_values(value, ascending=False, kind="stable")
            assert labels(panel) == rows[name].tolist()
            bars, points = panel.collections
            at = points.get_offsets()
            np.testing.assert_allclose(at[:, 0], rows[value])
            ends = np.array([bar.vertices[:, 0] for bar in bars.get_paths()])
            np.testing.assert_allclose(ends.mean(axis=1), rows[value])
            np.testing.assert_allclose(np.ptp(ends, axis=1), 2 * 1.645 * rows["sd"])
            filled = (points.get_facecolor()[:, :3] != 1.0).any(axis=1)
            if table == "scores":
                np.testing.assert_array_equal(filled, rows["takes_part"])
            else:
                np.testing.assert_array_equal(filled, rows["effect"].abs() > 3 * rows["sd"])
            assert filled.sum() >= most
    assert right.get_xlabel().startswith("effect of a score of 1")


@pytest.mark.slow
def test_some_of_the_programs(designed):
    with_programs(designed, n=9)
    titles = [ax.get_title().split(":")[0] for ax in programs(designed, show=False)[::3]]
    assert titles == [f"program {k}" for k in range(1, 7)]
    figure = programs(designed, return_fig=True)
    said = [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))]
    assert "6 of 9 programs" in said


def test_none_is_said_and_errors_name_the_remedy(designed):
    with_programs(designed)
    stored = {k: v for k, v in designed.uns["perturbation_effects"].items() if k not in STAMP}
    stored["programs"] = {name: table.iloc[:0] for name, table in stored["programs"].items()}
    designed.uns["perturbation_effects"] = with_format(stored)
    [ax] = programs(designed, show=False)
    assert ax.texts[0].get_text() == "No program is shared by two perturbations."
    npt.tl.fit_dag_blr(designed, shift_sd=0, key_added="exact")
    npt.tl.perturbation_effects(designed, posterior_key="exact")
    with pytest.raises(ValueError, match=r"no programs.*with shift_sd='learned'"):
        programs(designed)
