"""Every parameter of every public function, given what it cannot be."""

import inspect
import os
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings, kinds_of, options_of

ROOMS = ("pp", "tl", "pl", "get", "datasets")
NAN = float("nan")
TEXT = (3, "", b"control")
FLAG = ("yes", 2, None)
COUNT = ("ten", 0, 1.5, NAN, True, None, [3], 10**30, 10**400)
NUMBER = ("big", NAN, float("inf"), [0.5], True)
NAMES = (3, b"MYC", [None], [NAN], {"MYC": 1})
PATH = (3, "", ["a.png"])
OPTIONS = (
    "search_options", "constraints", "prior_options", "loading",
)  # fmt: skip  # mappings
WRONG = {
    "adata": (None, 3, "screen.h5ad", np.zeros((3, 3)), pd.DataFrame({"MYC": [1.0]})),
    **dict.fromkeys(("perturbation_key", "dag_key", "key", "condition_key", "target_key"), TEXT),
    **dict.fromkeys(("layer", "depth_key", "posterior_key", "guide_key", "guide_separator"), TEXT),
    **dict.fromkeys(
        ("method", "environments", "acquisition", "strategy", "starts", "rule"),
        ("exploit", 3, "", ["bic"]),
    ),
    **dict.fromkeys(("combinations", "multiple"), ("best", 3, "", ["a"])),
    **dict.fromkeys(("preset", "controls", "prior_units"), ("best", 3, "", ["a"])),
    "target_groups": (3, "nope", ("nope", "x"), ["perturbation"], ("perturbation", "MYC")),
    "condition": (3, "", "Contrl"),
    "program": (0, -1, 1.5, "first", [1], True),
    "gene_symbols": (*TEXT, "nope"),
    "control": (3, "", "contrl", b"control", ["contrl"], [None]),
    "separator": (3, None, b"+"),
    "key_added": ("a/b", "", 3, None),
    **dict.fromkeys(("copy", "show_progress", "intercept", "noise_aware", "directed"), FLAG),
    **dict.fromkeys(("return_fig", "verify", "counts", "as_anndata"), FLAG),
    "show": ("yes", 2),
    "held_out": ("maybe", 2),
    **dict.fromkeys(("n_cells", "n_components", "n_rounds", "n_repeats", "n_top", "lanes"), COUNT),
    **dict.fromkeys(("n_perturbations", "n_guides", "min_cells", "max_combination"), COUNT),
    "n_names": (-1, "ten", 1.5, True),
    "perturbation": (3, "", "NOPE", ["NOPE"]),
    "include": (*NAMES[:3], "MYC", ["NOPE"]),
    "exclude": (*NAMES[:3], "MYC", ["NOPE"]),
    "pending": (3, b"MYC", "MYC", [None], ["NOPE"], {"MYC": 0}, {"NOPE": 3}, {"MYC": "few"}),
    "costs": (3, "MYC", {"cel": 1}, {"cell": NAN}),
    **dict.fromkeys(("moi", "droplets", "lane_cells", "reads"), (0, -1, *NUMBER)),
    **dict.fromkeys(("kept", "recovery"), (-1, 2, *NUMBER)),
    **dict.fromkeys(("construct", "cell", "lane", "million_reads"), (-1, *NUMBER)),
    "budget": (-1, *NUMBER),
    **dict.fromkeys(("mean", "dispersion"), (-1, *NUMBER[:3])),
    **dict.fromkeys(("ncols", "n_cols", "n_perturbed", "min_umi"), COUNT),
    "n_graphs": COUNT,
    **dict.fromkeys(("n_samples", "n_folds", "n_genes", "n_control"), (1, *COUNT)),
    **dict.fromkeys(("n_random",), (-1, "ten", 1.5, True)),
    **dict.fromkeys(("n_runs", "max_guides"), ("ten", 0, 1.5, True)),
    "min_cells": (-1, "ten", 1.5, True),
    **dict.fromkeys(("alpha", "penalty", "expected_degree", "prior_scale"), (-1.0, *NUMBER)),
    **dict.fromkeys(("confidence", "level"), (0, 1, 95, *NUMBER)),
    "threshold": (-1, *NUMBER),
    **dict.fromkeys(("effect", "tolerance"), (0, -1, *NUMBER)),
    "min_gain": (-1, *NUMBER),
    "stop_probability": (0, 1, 95, *NUMBER),
    "stopping": (3, "stop", {"gain": 1}, {"min_gain": NAN}),
    "power": (0, 0.5, 1, 80, *NUMBER),
    **dict.fromkeys(("size", "sd", "total"), (0, -1, *NUMBER)),
    "share": (0, 1, -1, *NUMBER),
    "n_jobs": (0, 1.5, "all", True),
    "rng": (-1, 1.5, "seed", True, np.random.RandomState(0)),
    **dict.fromkeys(("perturbations", "strategies"), (*NAMES, "MYC", ["NOPE"])),
    "genes": (3, b"MYC", [None], {"MYC": 1}, ["NOPE"]),
    **dict.fromkeys(("groups", "panel"), (3, [None], "NOPE", ["NOPE"])),
    **dict.fromkeys(("exclude", "targets", "undetected"), (3, "MYC", [None], ["NOPE"])),
    "unassigned": (3, [None]),
    "check_scale": (3, "no", None),
    "allow_stale": (3, "yes", None),
    "control_guides": (3, [None], "NT"),
    **dict.fromkeys(("batch_key", "covariates"), (3, ["nope"], "nope")),
    **dict.fromkeys(("save", "cache", "folder", "backed", "path"), PATH),
    "ax": (3, "axes", []),
    "target": (
        3,
        None,
        "MYCC",
        ("batch", "c"),
        ("bach", "a"),
        {},
        {"MYC": NAN},
        {"NOPE": 1},
        [],
        {"MYC": "high"},
        npt.Target(at_most={"NOPE": 1}),
        np.ones(2),
        np.full(8, NAN),
    ),
    **dict.fromkeys(OPTIONS, (3, "alpha", [("alpha", 1)], {"alpa": 0.1}, {3: 1})),
    "features": (3, "other.h5ad", [1.0]),
    "shift_sd": (NAN, -1, "exact", 0.5, True, None),
    "shift": (3, "ko", [], {"MYC": 1}, {"NOPE": {"MYC": 1}}, {"MYC": {"NOPE": 1}}),
    "candidates": (3, "NOPE", [], ["NOPE"], {}, {"MYC": {"NOPE": 1}}),
    "dag": (3, "MYC", [("MYC",)], np.ones((2, 2)), [("MYC", "NOPE")], [("MYC", "MYC")]),
    "prior": (
        *(3, "MYC", [("MYC", "STK3")], {"befor": []}, {"before": 3}),
        *({"before": "MYC"}, {"required": [("MYC",)]}, {"forbidden": [("MYC", "NOPE")]}),
    ),
    "noise_var": (0, -1, NAN, "known", {"MYC": 1.0}, [1.0]),
    "guides": (3, None, "nope"),
    "targets": (3, "MYC", {"NOPE": "MYC"}),
    "modules": (3, "nope"),
    "components": (3, (1,), (0, 1), (1, 99), ("a", "b"), (1, 1.5)),
    "source": (3, "absent", None),
    "protein": (3, [1.0]),
    "subset": (3, "NOPE"),
    "perturbed": (-1, 1.5, 99, "NOPE", ["NOPE"], [None], ["MYC", "MYC"]),
}
# What is no error: the default, or of no consequence with the other arguments.
FINE = {
    ("pp.setup_screen", "separator", "None"),
    ("tl.plan_screen", "strategy", "'exploit'"),
    ("pl.effects_heatmap", "n_genes", "1"),
    ("pp.assign_guides", "threshold", "-1"),
    ("pp.assign_guides", "control", "'contrl'"),
    # The source is looked for first; see tests/datasets for the rest.
    ("datasets.perturb_cite_seq", "subset", "'NOPE'"),
    ("datasets.perturb_cite_seq", "condition", "'Contrl'"),
    ("datasets.perturb_cite_seq", "genes", "['NOPE']"),
}
ARGUMENTS = {
    "tl.design_interventions": {"target": "MYC", "n_samples": 5},
    "tl.plan_screen": {"target": "MYC"},
    "tl.target_distances": {"target": "MYC"},
    "tl.replay_design": {
        "targets": ["MYC"],
        "n_repeats": 2,
        "n_rounds": 1,
        "strategies": ["random"],
    },
    "tl.plan_cells": {"target": "MYC"},
    "tl.learn_dag": {"method": "boss", "environments": "all"},
    "pp.assign_guides": {"guides": "called"},
    "pp.perturb_cite_seq": {},
    "datasets.perturb_cite_seq": {"source": "absent"},
    "datasets.perturb_cite_seq_standin": {"folder": "made"},
}


def told(value):
    """How a message may name a bad value: as it is, or the first string in it."""
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, dict):
        return told(next(iter(value.values()), None)) + told(next(iter(value), None))
    return (
        [word for item in value for word in told(item)] if isinstance(value, (list, tuple)) else []
    )


def functions():
    return {
        f"{room}.{name}": getattr(getattr(npt, room), name)
        for room in ROOMS
        for name in getattr(npt, room).__all__
    }


def defaults_of(function):
    """The parameters of a function and its options, those in mappings among them."""
    found = {n: p.default for n, p in inspect.signature(function).parameters.items()}
    for cls in options_of(function).values():
        found |= {field.name: field.default for field in fields(cls)}
    return found


def on_cells():
    """All that take a screen of cells; pp.effect_table, which does not, has tests of its own."""
    return {name: f for name, f in functions().items() if name != "pp.effect_table"}


def cases():
    for called, function in on_cells().items():
        for name, default in defaults_of(function).items():
            for value in WRONG.get(name, ()):
                shown = repr(value)[:40].replace("\n", " ").split(" at 0x")[0]
                optional = default is None and value is None
                if not optional and (called, name, shown) not in FINE:
                    yield pytest.param(called, name, value, id=f"{called}, {name}={shown}")


def test_every_parameter_has_wrong_values():
    """A new parameter must not be forgotten here."""
    names = {n for f in on_cells().values() for n in defaults_of(f)}
    assert names - set(WRONG) == set()


def test_every_public_function_is_checked():
    """Its annotations can be read, and bounds are those of its parameters."""
    public = {**functions(), "report": npt.report, "summary": npt.summary}
    public |= {n: getattr(npt.Campaign, n) for n in vars(npt.Campaign) if n[0] != "_"}
    public["Campaign"] = npt.Campaign.__init__
    given = [n for n, f in public.items() if inspect.isroutine(f) and len(annotations(f)) > 1]
    assert [name for name in given if not hasattr(public[name], "__bounds__")] == []
    for name in given:
        bounds = public[name].__bounds__
        assert set(bounds) <= set(annotations(public[name])), name
        for parameter, annotation in annotations(public[name]).items():
            if parameter != "return":
                kinds_of(annotation, bounds.get(parameter, ()))
        for cls in options_of(public[name]).values():
            assert set(cls.__bounds__) <= set(annotations(cls)), name
            for option, annotation in annotations(cls).items():
                assert kinds_of(annotation, cls.__bounds__.get(option, ())), option


def annotations(function):
    return inspect.get_annotations(function)


@pytest.mark.parametrize(("called", "name", "value"), list(cases()))
def test_wrong_arguments(called, name, value, full_screen, assert_refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = functions()[called]
    arguments = ARGUMENTS.get(called, {}) | {name: value}
    if name not in OPTIONS:
        arguments = in_mappings(function, arguments)
    room = called.split(".")[0]
    if room == "datasets" or name == "adata":
        call, adata = (lambda _: function(**arguments)), None
    else:
        call, adata = (lambda adata: function(adata, **arguments)), full_screen
    assert_refused(
        call, adata, [], (ValueError, TypeError, FileNotFoundError), [name, *told(value)]
    )
    assert os.listdir(tmp_path) == []
