"""The section on programs, and perturbations that do the same."""

from __future__ import annotations

import pandas as pd

import nextpert as npt
from nextpert._adata.stored import with_format
from nextpert._report.measured import programs_section

KEYS = {"perturbation_effects": "perturbation_effects"}


def put(adata, programs):
    """Put in programs, as (share, scores, effects)."""
    stored = dict(adata.uns["perturbation_effects"])
    for name in ("format", "version", "contents"):
        stored.pop(name)
    shares = pd.DataFrame(
        [(k, share, len(on)) for k, (share, on, _) in enumerate(programs, 1)],
        columns=["program", "share", "n_perturbations"],
    )
    scores, genes = (
        pd.DataFrame(
            [(k, *pair, 0.05) for k, each in enumerate(programs, 1) for pair in each[i].items()],
            columns=["program", *names, "sd"],
        )
        for i, names in ((1, ("perturbation", "score")), (2, ("gene", "effect")))
    )
    scores["takes_part"] = scores["score"].astype(float).abs() > 0.3
    stored["programs"] = {"shares": shares, "genes": genes, "scores": scores}
    adata.uns["perturbation_effects"] = with_format(stored)
    return {"perturbation_effects": adata.uns["perturbation_effects"]}


def test_programs_are_named(adata):
    found = put(
        adata,
        [(0.52, {"JAK2": 1.0, "IFNGR1": 0.8, "STAT1": -0.2}, {"PSMB9": -1.2, "STAT1": 0.9}),
         (0.004, {"MYC": 1.0, "FOS": -0.7}, {"B2M": 0.4})],
    )  # fmt: skip
    section = programs_section(adata, found, KEYS)
    (programs,) = section.tables
    assert [[cell.text for cell in row] for row in programs.rows] == [
        ["1", "52%", "JAK2 +1.00, IFNGR1 +0.80", "PSMB9 -1.20, STAT1 +0.90"],
        ["2", "< 1%", "MYC +1.00, FOS -0.70", "B2M +0.40"],
    ]
    assert "JAK2 +1.00, IFNGR1 +0.80" in section.figures[0].alt


def test_that_there_are_none_is_said(adata):
    found = put(adata, [])
    section = programs_section(adata, found, KEYS)
    (words,) = section.words
    assert words.startswith("No program is shared")
    assert section.tables == section.figures == []


def test_without_the_hierarchical_model_there_is_no_section(adata):
    npt.tl.fit_dag_blr(adata, shift_sd=0)
    npt.tl.perturbation_effects(adata)
    found = {"perturbation_effects": adata.uns["perturbation_effects"]}
    assert programs_section(adata, found, KEYS) is None
    assert programs_section(adata, {}, KEYS) is None
