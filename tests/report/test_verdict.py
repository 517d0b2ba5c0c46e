"""The sentences of the verdict, case by case."""

from __future__ import annotations

import copy
import re

import pandas as pd
import pytest

from nextpert._report.measured import distances_section
from nextpert._report.planned import plan_section, steps_section
from nextpert._report.results import changes_of, keys_of, read_all, verdict_of
from nextpert.core.design.stopping import CONFIRM, KINDS, MEASURE, ORDER


@pytest.fixture
def found(_adata):
    return copy.deepcopy(read_all(_adata, keys_of(None), {}))


def only(found, *names):
    return {name: found[name] for name in names}


def test_of_a_plate(found):
    plan = found["plan"]
    summary, params = plan["summary"], plan["params"]
    summary |= {"probability_contains_best": 0.614, "if_effects_add_up": 0}
    summary |= {"n_cells": 2400, "n_controls": 300, "n_not_admitted": 196}
    params |= {"n_candidates": 1234, "target": "memory"}
    plan["plate"]["perturbation"] = ["A", "B", "C", "NT"]
    plan["plate"]["is_advised"] = True
    plan["advice"] |= {"kind": ORDER, "words": "Order a plan."}
    words = (
        "^Order a plan\\. .* A, B, C with 2,400 cells, .* 300 control cells\\. .* 61%, .* 1,234 "
    )
    assert re.search(words + ".* memory ", verdict_of(only(found, "plan")).next)
    words = plan_section(only(found, "plan")).words
    assert words[1].startswith("196 untested combinations are not candidates")
    summary["if_effects_add_up"] = 1
    sure = "ith probability 61%, if pairs interact as the prior assumes, the nearest of 1,234 "
    sure += "candidates to memory is"
    assert f"W{sure} one of these." in verdict_of(only(found, "plan")).next
    assert f"W{sure} one of these." in plan_section(only(found, "plan")).words[0]


def test_the_advice_is_that_of_the_plan_and_of_what_else_has_one(found):
    for name in ("plan", "plan_cells", "design"):
        found[name]["advice"] |= {"kind": CONFIRM, "words": f"By {name}."}
    found["plan"]["plate"] = found["plan"]["plate"].head(0)
    for name in ("plan", "plan_cells", "design"):
        assert verdict_of(found).next == f"By {name}."
        assert steps(found) == [f"By {name}."]
        del found[name]
    assert "significant effect" in verdict_of(found).next


def test_of_effects_alone(found):
    lfsr = found["perturbation_effects"]["lfsr"]
    lfsr[:] = 0.5
    lfsr[1, 2] = 0.049
    said = verdict_of(only(found, "perturbation_effects")).next
    assert said.startswith(f"1 of {len(lfsr)} perturbations have a significant effect.")
    assert said.endswith("run tl.plan_screen.")


@pytest.mark.parametrize("level", ["trust", "care", "do not trust"])
def test_trust_is_that_of_the_diagnosis(found, level):
    found["diagnosis"]["level"] = level
    parts = ["cells", "shrinkage", "unseen perturbations", "graph"]
    table = found["diagnosis"]["parts"].set_index("part").loc[parts].reset_index()
    table["level"] = ["trust", "care", "do not trust", level]
    found["diagnosis"]["parts"] = table
    found["diagnosis"]["verdict"] = "Do not trust the model here: choose at random.\nCells: none."
    verdict = verdict_of(found)
    assert verdict.level == level
    start = {
        "trust": "The checks on this screen support the model.",
        "care": "Use these results with care.",
        "do not trust": "Do not trust the model here: choose at random. ",
    }[level]
    assert verdict.trust.startswith(start)
    assert "differences from controls" in verdict.trust.split("with care: ")[0]
    assert "not reliable: predictions of perturbations without cells" in verdict.trust
    del found["diagnosis"]
    verdict = verdict_of(found)
    assert verdict.level == "not checked"
    assert "run tl.diagnose" in verdict.trust


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("trust", "accurate on this screen"),
        ("care", "with care"),
        ("do not trust", "do not rely on the ranks"),
    ],
)
def test_predicted_wells_are_counted_and_weighed(found, level, said):
    plate, parts = found["plan"]["plate"], found["diagnosis"]["parts"]
    wells = plate["strategy"] != "control"
    plate.loc[wells, "n_cells_seen"] = 30
    assert not any("no cells yet" in note for note in verdict_of(found).notes)
    plate.loc[0, "n_cells_seen"] = 0
    parts.loc[parts["part"] == "unseen perturbations", "level"] = level
    (note,) = (note for note in verdict_of(found).notes if "no cells yet" in note)
    assert note.startswith("1 of 3 perturbations to test next have no cells yet")
    assert said in note
    del found["diagnosis"]
    (note,) = (note for note in verdict_of(found).notes if "no cells yet" in note)
    assert note.endswith("their effects are predicted.")


def test_results_of_other_cells_and_targets_are_named(found, adata, described_anew):
    assert not any("different targets" in note for note in verdict_of(found).notes)
    found["plan"]["params"]["target"] = "another"
    assert any("different targets" in note for note in verdict_of(found).notes)
    assert not changes_of(adata, found)
    found["design"]["fit"] = "an earlier one"
    assert ": the ranking (it was" in changes_of(adata, found)
    adata.uns["dag_blr"]["digest"] = "x"
    described_anew(adata.uns["dag_blr"])
    parts = "the next round, the ranking, the effects, the number of cells, the replay"
    assert f": {parts}, the diagnostics (it was computed" in changes_of(adata, found)


def test_pairs_of_measured_members_are_not_judged_as_unseen_singles(found):
    plate, fit = found["plan"]["plate"], found["dag_blr"]
    assert fit["params"]["separator"] == "+"
    one, two = fit["environments"]["perturbation"].astype(str)[:2]
    plate["n_cells_seen"] = 30
    plate.loc[0, ["perturbation", "n_cells_seen"]] = [f"{one}+{two}", 0]
    assert not any("no cells yet" in note for note in verdict_of(found).notes)
    plate.loc[0, "perturbation"] = f"{one}+NEW"
    assert any("no cells yet" in note for note in verdict_of(found).notes)


def steps(found):
    section = steps_section(found)
    return [] if section is None else list(section.steps)


def constructs(*rows):
    """The constructs of a plan: label, kind, status and number of each."""
    return pd.DataFrame(
        [(label, i + 1, kind, status, "", "", label, 10)
         for label, kind, status, n in rows for i in range(n)],
        columns=["perturbation", "construct", "kind", "status", "guides", "new_guides_of",
                 "target_genes", "n_cells"],
    )  # fmt: skip


@pytest.fixture
def planned(found):
    """Two perturbations to order, one to use again, and the controls."""
    plate = found["plan"]["plate"]
    assert len(plate) == 4
    plate["perturbation"] = ["A", "B", "C", "NT"]
    plate["n_guides"], plate["n_cells"] = [3, 3, 2, 0], [100, 101, 101, 98]
    plate["n_cells_seen"] = [0, 0, 40, 300]
    found["plan"]["constructs"] = constructs(
        ("A", "single guide", "design", 3), ("B", "single guide", "design", 3),
        ("C", "single guide", "existing", 2), ("NT", "control", "existing", 1),
    )  # fmt: skip
    found["plan"]["summary"] |= {"n_cells": 400, "n_controls": 98, "is_diagnosed": 1}
    plate["is_advised"] = True
    found["plan"]["advice"] |= {"kind": ORDER, "words": "Order a plan."}
    return found


def test_steps_say_what_to_order_and_how_many_guides_and_cells(planned):
    advice, order, profile, again = steps(planned)
    assert advice == "Order a plan."
    assert order.startswith("Of 8 guides, design and order 6, reuse 2")
    assert profile.startswith("Profile 400 cells: 100 to 101 of each ")
    assert "Campaign.observe" in again


def test_steps_are_those_of_the_plan_only_where_it_is_advised(planned):
    plan = planned["plan"]
    for kind in KINDS:
        plan["advice"] |= {"kind": kind}
        plan["plate"]["is_advised"] = kind == ORDER
        assert len(steps(planned)) == {ORDER: 4, MEASURE: 2}.get(kind, 1)
        is_advised = "not advised" not in plan_section(planned).words[0]
        assert is_advised == (kind == ORDER)
    plan["params"]["strategy"], plan["plate"]["is_advised"] = "explore", False
    assert "by strategy 'explore', but is not advised" in plan_section(planned).words[0]
    # What is included on request does not make the others unadvised.
    plan["plate"]["is_advised"] = [True, True, False, True]
    plan["plate"]["strategy"] = ["measure", "measure", "include", "control"]
    assert len(steps(planned)) == 4
    plan["summary"]["is_diagnosed"] = 0
    assert "run tl.diagnose" in steps(planned)[3]
    plan["plate"] = plan["plate"].head(0)
    assert "no cells" in plan_section(planned).words[0]
    assert len(steps(planned)) == 2


def test_distances_below_0_are_shown_as_0_and_kept_in_the_file(found):
    measured = found["target_distances"]["table"]
    measured.loc[0, ["distance", "low", "high", "relative_distance"]] = [-0.008, -0.2, 0.5, -0.01]
    (table,) = distances_section(found).tables
    first = dict(zip([column.head for column in table.columns], table.rows[0], strict=True))
    assert first["Distance"].text == "0 (0 to 0.50)"
    assert first["Relative to control"].text == "< 1%"
    assert table.download["distance"].iloc[0] == -0.008


def test_what_to_make_is_a_table(planned):
    shown = plan_section(planned).tables[1]
    assert [column.head for column in shown.columns] == [
        "Perturbation", "Construct", "Kind", "Status", "Target genes", "Cells",
    ]  # fmt: skip
    assert len(shown.rows) == 8  # the controls are no construct to make
    assert len(shown.download) == 9
