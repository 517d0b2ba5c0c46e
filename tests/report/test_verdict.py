"""The sentences of the verdict, case by case."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest

from nextpert._report.judged import cells_section
from nextpert._report.measured import distances_section
from nextpert._report.planned import plan_section, steps_section
from nextpert._report.results import keys_of, read_all
from nextpert._report.verdict import verdict_of


@pytest.fixture
def found(_adata):
    return copy.deepcopy(read_all(_adata, keys_of(None), {}))


def only(found, *names):
    return {name: found[name] for name in names}


def test_of_a_plate(found):
    summary, params = found["plan"]["summary"], found["plan"]["params"]
    summary |= {"probability_contains_best": 0.614, "probability_contains_better": 0.97}
    summary |= {"n_cells": 2400, "n_controls": 300}
    params |= {"n_candidates": 1234, "target": "memory"}
    found["plan"]["plate"]["perturbation"] = ["A", "B", "C", "NT"]
    assert verdict_of(only(found, "plan")).next == (
        "Perturb A, B, C next, in 2,400 cells, 300 of them controls. With probability 61%, the "
        "nearest of 1,234 candidates to memory is among them."
    )
    summary["probability_contains_better"] = 0.63
    doubt = "Only with probability 63% is one of them closer to memory than the control."
    told = only(found, "plan")
    assert verdict_of(told).next.endswith(f" is among them. {doubt}")
    assert doubt in plan_section(told).words


def test_of_a_ranking(found):
    ranking = found["design"]["ranking"]
    ranking.loc[0, ["perturbation", "probability_best", "relative_distance"]] = ["A", 0.3, 0.25]
    found["design"]["params"]["target"] = "memory"
    assert verdict_of(only(found, "design")).next == (
        f"Perturb A next: of {len(ranking) - 1} candidates it is, with probability 30%, the "
        "nearest to memory, and is predicted at 25% of the control's distance."
    )
    ranking["relative_distance"] = np.nan  # the control is there already
    told = verdict_of(only(found, "design"))
    assert told.next.endswith("the nearest to memory.")
    start = "The control cannot be distinguished from memory"
    assert any(note.startswith(start) for note in told.notes)


def test_of_effects_alone(found):
    lfsr = found["perturbation_effects"]["lfsr"]
    lfsr[:] = 0.5
    lfsr[1, 2] = 0.049
    said = verdict_of(only(found, "perturbation_effects")).next
    assert said.startswith(f"1 of {len(lfsr)} perturbations have a significant effect.")
    assert said.endswith("run tl.plan_screen.")


def test_that_one_may_stop_comes_first(found):
    stopping = found["plan_cells"]["stopping"]
    stopping |= {"advice": "go on", "stop": 0}
    assert "stop" not in verdict_of(found).next
    stopping |= {"advice": "stop", "stop": 1, "best_known": "A", "good_enough": 0.97}
    stopping["relative_distance"] = 0.3
    n = len(stopping["candidates"])
    target = found["plan_cells"]["params"]["target"]
    start = (
        f"You can stop here. With probability 97%, none of the {n} candidates is closer to "
        f"{target} than A by more than 10% of the control's distance."
    )
    assert verdict_of(found).next.startswith(f"{start} If you go on, perturb ")
    assert verdict_of(only(found, "plan_cells")).next.strip() == start


def test_that_nothing_differs_comes_first(found):
    stopping = found["plan_cells"]["stopping"]
    stopping |= {"advice": "no difference", "n_untested": 20, "n_perturbations": 8, "n_cells": 25}
    assert verdict_of(found).next.startswith(
        "No perturbation can be distinguished from the others, so the gain of a further plate of "
        "the same kind (8 perturbations, 25 cells each) cannot be estimated. Use more cells per "
        "perturbation, or test the 20 untested candidates. If you go on, perturb "
    )
    stopping |= {"advice": "at target"}
    assert verdict_of(found).next.startswith("The control cannot be distinguished from ")
    del stopping["advice"]  # results of an earlier version
    assert verdict_of(found).next.startswith("Perturb ")


@pytest.mark.parametrize("level", ["trust", "care", "do not trust"])
def test_trust_is_that_of_the_diagnosis(found, level):
    found["diagnosis"]["level"] = level
    parts = ["cells", "shrinkage", "unseen perturbations", "graph"]
    table = found["diagnosis"]["parts"].set_index("part").loc[parts].reset_index()
    table["level"] = ["trust", "care", "do not trust", level]
    found["diagnosis"]["parts"] = table
    verdict = verdict_of(found)
    assert verdict.level == level
    start = {
        "trust": "The checks on this screen support the model.",
        "care": "Trust this with care.",
        "do not trust": "Do not trust the model on this screen",
    }[level]
    assert verdict.trust.startswith(start)
    assert "that perturbations differ" in verdict.trust.split("with care: ")[0]
    assert "not reliable: predictions of perturbations without cells" in verdict.trust


def test_trust_that_nobody_judged(found):
    del found["diagnosis"]
    verdict = verdict_of(found)
    assert verdict.level == "not checked"
    assert "run tl.diagnose" in verdict.trust


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("trust", "accurate on this screen"),
        ("care", "with care"),
        ("do not trust", "do not rely on their ranks"),
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
    assert note.endswith("they are predicted.")


def test_results_of_other_cells_are_named(found):
    assert not any("other cells" in note for note in verdict_of(found).notes)
    found["design"]["fit"] = "an earlier one"
    (note,) = (note for note in verdict_of(found).notes if "other cells" in note)
    assert note.endswith("run again: the ranking.")
    found["dag_blr"]["digest"] = "x"
    (note,) = (note for note in verdict_of(found).notes if "other cells" in note)
    every = "the next round, the ranking, the effects, the diagnostics, the number of cells"
    assert note.endswith(f"run again: {every}.")


def test_two_targets_are_told(found):
    assert not any("different targets" in note for note in verdict_of(found).notes)
    found["plan"]["params"]["target"] = "another"
    assert any("different targets" in note for note in verdict_of(found).notes)


def test_candidates_that_do_harm_are_told(found):
    found["design"]["ranking"].loc[0, "relative_distance"] = 1.4
    found["design"]["ranking"].loc[1:, "relative_distance"] = 1.5
    assert any("than the control" in note for note in verdict_of(found).notes)


def test_guides_that_are_not_declared_come_first(found):
    assert not any("not declared" in note for note in verdict_of(found).notes)
    diagnosis = found["diagnosis"]
    row = dict.fromkeys(diagnosis["summary"].columns, 0.0)
    row |= {"part": "guides", "quantity": "undeclared_variance", "passed": "no"}
    row |= {"rule": "", "meaning": ""}
    summary = pd.concat([diagnosis["summary"], pd.DataFrame([row])], ignore_index=True)
    said = {"part": "guides", "level": "do not trust", "verdict": "Guides: x is not declared."}
    parts = pd.concat([pd.DataFrame([said]), diagnosis["parts"]], ignore_index=True)
    found["diagnosis"] = diagnosis | {"summary": summary, "parts": parts}
    verdict = verdict_of(found)
    assert verdict.notes[0] == "x is not declared."
    assert "agreement of guides" in verdict.trust.split("not reliable: ")[1]
    summary["passed"] = "yes"
    assert not any("not declared" in note for note in verdict_of(found).notes)


def steps(found):
    section = steps_section(found)
    return [] if section is None else list(section.steps)


def constructs(*rows):
    """The constructs of a plan: label, kind, status and number of each, and what is new in it."""
    return pd.DataFrame(
        [
            (label, i + 1, kind, status, "", new[0] if new else "", label, 10)
            for label, kind, status, n, *new in rows
            for i in range(n)
        ],
        columns=["perturbation", "construct", "kind", "status", "guides", "new_guides_of",
                 "target_genes", "n_cells"],
    )  # fmt: skip


REUSED = constructs(
    *((label, "single guide", "existing", n) for label, n in {"A": 3, "B": 3, "C": 2}.items())
)


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
    found["plan"]["summary"] |= {"n_cells": 400, "n_controls": 98}
    found["plan_cells"]["stopping"] |= {"advice": "go on", "stop": 0}
    return found


def test_steps_say_what_to_order_and_how_many_guides_and_cells(planned):
    order, profile, again = steps(planned)
    assert order == (
        "Design and order 6 single guides: 3 for each of A, B. Reuse 2 single guides of this "
        "screen, for C."
    )
    assert profile.startswith("Profile 400 cells: 100 to 101 of each perturbation and 98 controls")
    assert "Campaign.observe" in again
    planned["plan"]["constructs"] = REUSED
    assert steps(planned)[0] == (
        "Order nothing: reuse 8 single guides of this screen: 2 to 3 for each of A, B, C."
    )


def test_steps_say_what_to_clone_and_what_to_design(planned):
    planned["plan"]["constructs"] = constructs(
        ("C", "single guide", "existing", 2), ("C+D", "dual guide", "clone", 4),
        ("D+E", "dual guide", "clone", 4), ("A+C", "dual guide", "design", 4, "A"),
        ("A+B", "dual guide", "design", 3, "A, B"), ("F", "single guide", "design", 1),
        ("C+E", "dual guide", "existing", 1),
        ("C+D+E", "3 guides", "clone", 1), ("NT", "control", "existing", 1),
    )  # fmt: skip
    assert steps(planned)[0] == (
        "Design and order 7 dual-guide constructs with new guides of A, B: 3 to 4 for each of A+C, "
        "A+B. Design and order 1 single guide, for F. "
        "Clone 8 dual-guide constructs of guides of this screen: 4 for each of C+D, D+E. "
        "Clone 1 3-guide construct of guides of this screen, for C+D+E. "
        "Reuse 2 single guides of this screen, for C. "
        "Reuse 1 dual-guide construct of this screen, for C+E."
    )


def test_steps_order_further_guides_where_cells_alone_do_not_suffice(planned):
    stored = planned["plan_cells"]
    table = stored["distances"]
    table.loc[[0, 1], "perturbation"] = ["A", "C"]
    table.loc[0, ["cells_to_distinguish", "guides_to_distinguish"]] = [np.inf, 8.0]
    stored["noise"]["n_guides"] = 4.0
    assert steps(planned)[0].startswith("Design and order 6")  # A is new: what is ordered is open
    planned["plan"]["plate"]["n_cells_seen"] = 40
    planned["plan"]["constructs"] = REUSED
    assert steps(planned)[0] == (
        "Order 4 further guides for each of A and C: with 4 guides, no number of cells "
        "distinguishes them; 8 guides suffice. Reuse 8 single guides of this screen: 2 to 3 for "
        "each of A, B, C."
    )
    for cells, guides in ((20.0, 8.0), (np.inf, np.inf)):
        table.loc[0, ["cells_to_distinguish", "guides_to_distinguish"]] = [cells, guides]
        assert steps(planned)[0].startswith("Order nothing")


def test_steps_if_one_can_stop(planned):
    stored = planned["plan_cells"]
    name = str(stored["distances"]["perturbation"].iloc[0])
    stored["stopping"] |= {"advice": "stop", "stop": 1, "best_known": name}
    stored["distances"].loc[0, "cells_needed"], stored["noise"]["n_guides"] = 1234.0, 4.0
    stop, confirm, order, *_ = steps(planned)
    assert stop.startswith("You can stop: no further round is needed")
    assert f"Confirm {name} in an independent experiment" in confirm
    assert "with 4 guides and at least 1,234 cells" in confirm
    assert order.startswith("If you go on nevertheless, design and order 6")
    stored["distances"].loc[0, "cells_needed"] = np.inf
    assert steps(planned)[1].endswith("guides.")
    assert len(steps(only(planned, "plan_cells"))) == 2


@pytest.mark.parametrize(
    ("advice", "said"), [("no difference", "more cells per perturbation"), ("at target", "check")]
)
def test_steps_before_ordering(planned, advice, said):
    planned["plan_cells"]["stopping"] |= {"advice": advice}
    first, order, *_ = steps(planned)
    assert first.startswith("Before ordering")
    assert said in first
    assert order.startswith("If you go on nevertheless, design and order")


def test_steps_without_a_plan(found):
    first = found["design"]["ranking"]["perturbation"].iloc[0]
    (step,) = steps(only(found, "design"))
    assert f"with {first} first: run tl.plan_screen" in step
    assert steps(only(found, "perturbation_effects")) == []


def test_distances_below_0_are_shown_as_0_and_kept_in_the_file(found):
    measured = found["target_distances"]["table"]
    measured.loc[0, ["distance", "low", "high", "relative_distance"]] = [-0.008, -0.2, 0.5, -0.01]
    (table,) = distances_section(found).tables
    first = dict(zip([column.head for column in table.columns], table.rows[0], strict=True))
    assert first["Distance"].text == "0 (0 to 0.50)"
    assert first["Relative to control"].text == "< 1%"
    assert table.download["distance"].iloc[0] == -0.008
    found["plan_cells"]["distances"].loc[0, ["distance", "relative_distance"]] = [-0.008, -0.01]
    (table,) = cells_section(found).tables
    texts = [cell.text for cell in table.rows[0]]
    assert texts[2:4] == ["0", "< 1%"]


def test_what_to_make_is_a_table(planned):
    shown = plan_section(planned).tables[1]
    assert [column.head for column in shown.columns] == [
        "Perturbation", "Construct", "Kind", "Status", "Target genes", "Cells",
    ]  # fmt: skip
    assert len(shown.rows) == 8  # the controls are no construct to make
    assert len(shown.download) == 9
    planned["plan"]["constructs"].loc[0, ["guides", "new_guides_of"]] = ["c1", "B"]
    heads = [column.head for column in plan_section(planned).tables[1].columns]
    assert heads[4:6] == ["Guides", "New guides of"]
