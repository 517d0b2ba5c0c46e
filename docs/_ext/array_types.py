"""Which kinds of arrays each function reads cells from; ``tests/docs`` runs them all."""

from __future__ import annotations

import nextpert

TYPES = ("dense", "CSR", "CSC", "backed", "Dask")
# Cells and genes cannot be dropped from a file in place.
WITH_COPY = {"pp.perturb_cite_seq", "pp.perturbation_screen"}
# These read columns of ``obs``, or results alone.
NO_CELLS = {
    "pp.assign_guides",
    "tl.plan_loading",
    *(f"pl.{name}" for name in nextpert.pl.__all__ if name != "expression_shift"),
}
_OF_TABLES = "pp.effect_table"  # it is given effects, and no cells
FUNCTIONS = [
    name
    for sub in ("pp", "tl", "pl")
    for name in (f"{sub}.{each}" for each in getattr(nextpert, sub).__all__)
    if name != _OF_TABLES
]

PAGE = """# Array types

The table shows which kinds of arrays functions can read cells from, in `adata.X` or a layer.
*Dense* is a NumPy array, *CSR* and *CSC* are SciPy's sparse matrices and arrays, *backed* is a file
opened with `anndata.read_h5ad(path, backed="r")`, whose cells are read in one pass and never all at
once, *Dask* is a Dask array of either form, also that of `anndata.experimental.read_lazy`, h5ad or
zarr (it needs the extra `dask`). Results of all kinds agree to rounding. *yes,
copied* means with `copy=True`, because cells and genes cannot be dropped from a file in place.

"""
REST = """
These functions show results or columns of `obs`, and need no cells; where cells are there, they are
compared with those of the result: {names}.

"""


def row(function: str) -> list[str]:
    """Return what a function says of each of ``TYPES``."""
    if function in WITH_COPY:
        return ["yes", "yes", "yes", "yes, copied", "yes, copied"]
    return ["yes"] * len(TYPES)


def page() -> str:
    """Return the table of all functions."""
    lines = [f"| function | {' | '.join(TYPES)} |", "|---" * (len(TYPES) + 1) + "|"]
    for name in FUNCTIONS:
        if name not in NO_CELLS:
            lines.append(f"| {link(name)} | {' | '.join(row(name))} |")
    names = ", ".join(link(name) for name in FUNCTIONS if name in NO_CELLS)
    return PAGE + "\n".join(lines) + "\n" + REST.format(names=names)


def link(function: str) -> str:
    """Return a link to the page of a function."""
    return f"[`{function}`](generated/nextpert.{function}.rst)"


def of_function(function: str) -> list[str]:
    """Return what the page of one function says, as lines of reStructuredText."""
    if function == _OF_TABLES:
        return []
    if function in NO_CELLS:
        return ["Needs no cells: ``X`` may be of any kind, or missing.", ""]
    cells = "\n".join(f"     - {each}" for each in row(function)).replace("     -", "   * -", 1)
    head = "\n".join(f"     - {each}" for each in TYPES).replace("     -", "   * -", 1)
    table = [".. list-table::", "   :header-rows: 1", "", *head.split("\n"), *cells.split("\n"), ""]
    return [*table, ":doc:`Explanation </api/array_types>`.", ""]
