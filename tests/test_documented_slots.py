"""Every slot that a function writes is named in its docstring, and every field there or on a page.

The page is ``docs/model/stored_results.md``; the columns of tables are fields, too.
"""

import dataclasses
import hashlib
import importlib
import inspect
import json
import pkgutil
import re
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
import stored_results
from function_pages import stored
from nextpert.core._codec import describe

SLOTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


def look_like_the_study(adata):
    """Make the screen look like the study of Perturb-CITE-seq: counts, conditions, guides."""
    npt.pp.assign_guides(adata, guides=guide_counts(adata))
    adata.X = np.abs(np.round(adata.X))
    adata.obs["condition"] = pd.Categorical(["Control"] * adata.n_obs)


def guide_counts(adata):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 12, (adata.n_obs, 3))
    return pd.DataFrame(counts, adata.obs_names, ["MYC_1", "STK3_1", "NO_SITE_1"])


def given(adata):
    npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STK3"), ("MYC", "GATA1")])


def fit(adata):
    given(adata)
    npt.tl.fit_dag_blr(adata)


def plan(adata):
    fit(adata)
    npt.tl.plan_screen(adata, "MYC", n_perturbations=2)


# By function: what has to be there before, and the options of a call that writes all it can.
CALLS = {
    "pp.assign_guides": (None, lambda adata: {"guides": guide_counts(adata)}),
    "pp.perturb_cite_seq": (look_like_the_study, lambda _: {"panel": ["MYC", "STK3"]}),
    "pp.perturbation_screen": (None, lambda _: {"panel": ["MYC", "STK3"]}),
    "pp.setup_screen": (None, lambda _: {"batch_key": "batch"}),
    "tl.cpca": (None, lambda _: {"alpha": 1.0}),
    "tl.dag_fit": (given, lambda _: {"n_random": 5}),
    "tl.design_interventions": (fit, lambda _: {"target": "MYC", "n_samples": 10}),
    "tl.diagnose": (fit, lambda _: {}),
    "tl.fit_dag_blr": (given, lambda _: {}),
    "tl.learn_dag": (
        None,
        lambda _: {"method": "boss", "environments": "all", "n_graphs": 3},
    ),
    "tl.perturbation_effects": (fit, lambda _: {}),
    "tl.plan_cells": (fit, lambda _: {"target": "MYC"}),
    "tl.plan_loading": (plan, lambda _: {}),
    "tl.plan_screen": (fit, lambda _: {"target": "MYC", "n_perturbations": 2}),
    "tl.replay_design": (
        fit,
        lambda _: {
            "targets": ["MYC"], "strategies": ["exact_greedy"], "n_rounds": 2, "n_repeats": 2,
        },
    ),
    "tl.target_distances": (None, lambda _: {"target": "MYC"}),
}  # fmt: skip


# What a documented type stands for.
TYPES = {
    "table": pd.DataFrame,
    "sparse": sp.spmatrix | sp.sparray,
    "array": np.ndarray | list,
    "names": np.ndarray,
    "mapping": Mapping,
    "number": int | float | np.number | np.ndarray | pd.Series,
    "text": str,
    "labels": pd.Series,
    "yes or no": np.ndarray,
}


# Digests of what results hold: whoever changes a field sees it here, and may have to raise FORMAT.
FIELDS = {
    "dataclasses": "f3b40e81", "pp.assign_guides": "44136fa3", "pp.perturb_cite_seq": "48a42541",
    "pp.perturbation_screen": "48a42541", "pp.setup_screen": "5bca3346", "tl.cpca": "6089d643",
    "tl.dag_fit": "154628a3", "tl.design_interventions": "29b60291", "tl.diagnose": "b7f8b756",
    "tl.fit_dag_blr": "c7412a0e", "tl.learn_dag": "9ef719e1", "tl.perturbation_effects": "c98c6141",
    "tl.plan_cells": "fc03cb0a", "tl.plan_loading": "9aeb6eea", "tl.plan_screen": "3982b4a3",
    "tl.replay_design": "f468346e", "tl.target_distances": "6ddc6231",
}  # fmt: skip
NEW_FORMAT = (
    "what is stored has changed: set this digest in FIELDS, and raise FORMAT in core/_codec.py, so "
    "that older results are refused, unless it is above that of the last release"
)


def digest(fields):
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]


def without_shapes(described):
    if isinstance(described, Mapping):
        return {name: without_shapes(part) for name, part in described.items()}
    return described.split(" ")[0]


def declared_fields():
    """Return every field that some dataclass of the package stores, as it is declared."""
    found = {}
    for module in pkgutil.walk_packages(npt.__path__, "nextpert."):
        if module.name.endswith("__main__"):
            continue
        for name, record in vars(importlib.import_module(module.name)).items():
            if not dataclasses.is_dataclass(record) or record.__module__ != module.name:
                continue
            for field in dataclasses.fields(record):
                if "part" in field.metadata:
                    part = field.metadata["part"]
                    is_whole = part.kind == "flag" or part.dtype is np.int64
                    found[f"{name}.{field.name}"] = [part.kind, str([*part.shape, is_whole])]
    return found


def test_declared_fields_change_with_the_format_alone():
    fields = declared_fields()
    assert "FittedPosterior.genes" in fields
    assert len(fields) > 50
    assert digest(fields) == FIELDS["dataclasses"], NEW_FORMAT


def slots(adata):
    return {(slot, str(key)) for slot in SLOTS for key in getattr(adata, slot) if key is not None}


def test_every_function_that_writes_is_called():
    public = {
        f"{sub}.{name}"
        for sub in ("pp", "tl")
        for name in importlib.import_module(f"nextpert.{sub}").__all__
    }
    assert set(CALLS) == public - {"pp.effect_table"}  # which makes an AnnData


# How the page calls what :func:`describe` finds.
KINDS = {
    "number": ("numbers",), "yes or no": ("numbers",), "text": ("text",), "names": ("text",),
    "labels": ("text",), "array": ("numbers", "empty"), "sparse": ("sparse",),
    "table": ("columns",), "mapping": ("parts",),
}  # fmt: skip
WITH_KIND = re.compile(rf"((?:`\w+`(?:, | and )?)+) \(({'|'.join(KINDS)})")


def blocks(page):
    """Return what a page says of each table or mapping, and of other fields (without a place)."""
    first, *parts = re.split(r"(?:Columns|Fields) of `([^`]+)`", page)
    found = {"": first}
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        own, _, others = text.partition("Further fields")
        found[re.sub(r'\["(\w+)"\]', r"/\1", title).replace(".", "/")] = own
        found[""] += others
    return found


def places_without_a_name(value, key, returns, page):
    """Yield fields and columns that are not named, or as of another kind than is stored."""
    every = stored_results.sections()
    common = set(re.findall(r"^- `(\w+)`", every["What every result has"], re.M))
    waiting = [("", describe(value))]
    for place, found in waiting:
        if not isinstance(found, Mapping):
            continue
        text = blocks(page).get(place, page)
        text = every["Advice"] if place.startswith("advice") else text
        last = place.rsplit("/", 1)[-1]
        items = re.findall(rf"^ *- [^\n]*``{last}``[^:]*(:.*?)(?=^ *- |\Z)", returns, re.M | re.S)
        text += "".join(items).replace("``", "`") if place else returns
        of_kind = [
            (each, known)
            for names, known in WITH_KIND.findall(text)
            for each in re.findall(r"\w+", names)
        ]
        (parts,) = found.values()
        for name, part in parts.items():
            where = f"{place}/{name}".strip("/")
            if (not place and name in common) or name.isdigit():
                continue
            kind = next(iter(part)) if isinstance(part, Mapping) else part.split(" ")[0]
            kinds = [known for each, known in of_kind if each == name]
            if not re.search(rf'(?:`|\["){name}(?:`|"\])', text if place else page + returns):
                yield where
            if kinds and not any(kind in KINDS[known] for known in kinds):
                yield f"{where} ({kind}, not {' or '.join(kinds)})"
            waiting.append((where, part))


@pytest.mark.parametrize("name", CALLS)
def test_what_is_written_is_documented(name, small_screen):
    before, options = CALLS[name]
    sub, _, short = name.partition(".")
    function = getattr(getattr(npt, sub), short)
    with warnings.catch_warnings(action="ignore"):
        if before is not None:
            before(small_screen)
        there = slots(small_screen)
        function(small_screen, **options(small_screen))
    text = inspect.cleandoc(function.__doc__)
    returns = re.search(r"^Returns\n-+\n(.*?)(?=^\w[\w ]*\n-+\n)", text, re.M | re.S)[1]
    documented = set(re.findall(r"(\w+)\[\"(\w+)\"\]", returns))
    written = slots(small_screen) - there
    contents = {
        key: without_shapes(json.loads(small_screen.uns[key]["contents"]))
        for slot, key in sorted(written)
        if slot == "uns" and "contents" in small_screen.uns[key]
    }
    assert digest(contents) == FIELDS[name], NEW_FORMAT
    assert written or name == "tl.learn_dag"
    assert written <= documented
    # Functions of pp write the same tables, which the page describes once.
    alike = [name, *(each for each in CALLS if sub == "pp" and each[:3] == "pp.")]
    page = "\n".join(stored_results.sections()[each] for each in dict.fromkeys(alike))
    unnamed = {
        f"uns[{key!r}]/{place}"
        for slot, key in written
        if slot == "uns"
        for place in places_without_a_name(small_screen.uns[key], key, returns, page)
    }
    assert not unnamed, f"{name} writes fields that neither its docstring nor the page names"
    # The table on the page has a row of the type that is stored.
    rows = {
        key: (kind, meaning)
        for keys, kind, meaning in stored(text)
        for key in re.findall(r"``([^`]+)``", keys)
    }
    assert all(len(meaning) > 5 for _, meaning in rows.values())
    for row, (kind, _) in rows.items():
        where = re.match(r'(\w+)\["(\w+)"\](?:\["(\w+)"\])?', row)
        if not where or (where[1], where[2]) not in written or not kind:
            continue
        value = getattr(small_screen, where[1])[where[2]]
        if where[3]:
            if where[3] not in value:
                continue  # of other options
            value = value[where[3]]
        (known,) = {known for known in TYPES if re.match(f"{known}s?\\b", kind)}
        assert isinstance(value, TYPES[known]), (row, kind, type(value))
        shape = re.search(r"``\((.*)\)``", kind)
        if shape:
            assert np.ndim(value) == len([axis for axis in shape[1].split(",") if axis]), row
