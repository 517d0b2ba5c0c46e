"""``nextpert.report``: one self-contained page for the lab; ``nextpert.summary``: its verdict."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import one_look
from nextpert._adata.arguments import checked
from nextpert._files import whole_file
from nextpert._report import measured, planned
from nextpert._report.page import render, template
from nextpert._report.results import SOURCES, absent, changes_of, keys_of, read_all, verdict_of
from nextpert._report.tables import number
from nextpert.core._text import card, lines
from nextpert.study.advice import name_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from anndata import AnnData

    from nextpert._report.results import Results

logger = logging.getLogger(__name__)


@checked()
def report(
    adata: AnnData,
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    command: str | None = None,
    keys: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained HTML page for the lab with all results in ``adata``.

    The page begins with a verdict: what to do next and how reliable the analysis is. The next steps
    follow: the advice and, if it is to order the plan, the guides and numbers of cells. Then come
    the target, the perturbations of the next round, the ranking with intervals, measured distances,
    effects, programs, the graph (as associations, unless the diagnosis supports its directions),
    the number of cells, a replay, diagnostics, and how the results were computed. Tables can be
    sorted, filtered and downloaded as csv, and candidates ranked by a tolerance. Missing results
    are listed with the function that computes them.

    The file needs no network and no other files: it can be sent by e-mail, or printed on two or
    three pages (with the first rows of long tables). The same ``adata`` gives the same file.

    Parameters
    ----------
    adata
        Cells x genes with results of :mod:`nextpert.tl`; it is not changed.
    path
        File to write; by default ``nextpert_report.html`` in the working directory.
    title
        Title of the page; by default it names the target.
    command
        Command that computed the results, to show verbatim.
    keys
        Mapping of results to their ``key_added``, if it is not the default, such as
        ``{"plan": "second_plate"}``.

    Returns
    -------
    ~pathlib.Path
        The file.

    Raises
    ------
    ValueError
        If ``adata`` has no result, or a result is damaged or absent although ``keys`` names it. No
        file is written in that case.

    Examples
    --------
    >>> import tempfile
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"B2M": 3.0}, candidates="genes", n_perturbations=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = npt.report(adata, f"{folder}/plate.html").read_text()
    >>> page.startswith("<!doctype html>")
    True
    """
    file = "nextpert_report.html" if path is None else path
    used = keys_of(keys)
    results = read_all(adata, used, keys or {})
    with one_look():
        return _write(adata, Path(file), results, used, title, command)


def _write(
    adata: AnnData,
    file: Path,
    results: Results,
    used: Mapping[str, str],
    title: str | None,
    command: str | None,
) -> Path:
    """Write the page of :func:`report`."""
    sections = [
        planned.steps_section(results),
        planned.target_section(results),
        planned.plan_section(results),
        planned.ranking_section(results),
        measured.distances_section(results),
        measured.effects_section(adata, results, used),
        measured.programs_section(adata, results, used),
        measured.graph_section(adata, results, used),
        measured.cells_section(results),
        measured.replay_section(results),
        measured.diagnosis_section(adata, results, used),
        measured.made_section(adata, results, used, command),
    ]
    if title is None:
        targets = [results[x]["params"]["target"] for x in ("plan", "design") if x in results]
        title = f"Towards {name_of(targets[0])}" if targets else "Perturbation screen"
    verdict = verdict_of(results, changes_of(adata, results))
    page = render(title, verdict, list(filter(None, sections)), absent(results))
    with whole_file(file) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    logger.info("Report written to %s (%.1f MB).", file, len(page.encode()) / 1e6)
    return file


@dataclass(frozen=True, repr=False)
class Summary:
    """Facts by name, printed with one fact per line and shown as a card in a notebook."""

    title: str
    facts: dict[str, str]

    def __repr__(self) -> str:
        return lines(self.title, self.facts)

    def _repr_html_(self) -> str:
        return card(self.title, self.facts)


@checked()
def summary(
    adata: AnnData, *, keys: Mapping[str, str] | None = None, methods: bool = False
) -> Summary:
    """Summarise the results in ``adata``: what to do next, and how reliable the analysis is.

    The summary shows the verdict of :func:`nextpert.report` in a terminal or notebook. The results
    themselves are mappings of arrays and tables in ``adata.uns``, which are hard to read in print.

    Parameters
    ----------
    adata
        Cells x genes with results of :mod:`nextpert.tl`; it is not changed.
    keys
        Mapping of results to their ``key_added``, if it is not the default, such as
        ``{"plan": "second_plate"}``.
    methods
        Whether to add a paragraph for a methods section, from the options stored with the results.

    Returns
    -------
    Summary
        ``print`` and notebooks show it. Its ``facts`` are a dictionary: ``Warning`` (if cells,
        roles or fit have changed since the results were computed), ``Next``, ``Reliability``,
        ``Notes``, ``Results`` (where they are stored and which function wrote them),
        ``Not computed``, and ``Methods`` if asked for.

    Raises
    ------
    ValueError
        If ``adata`` has no result, or a result is damaged or absent although ``keys`` names it.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"B2M": 3.0}, candidates="genes", n_perturbations=2)
    >>> print(npt.summary(adata))  # doctest: +ELLIPSIS
    Results in adata
      Next          Order 2 perturbations (586 cells each): ...
      Reliability   The reliability of these results was not checked: run tl.diagnose.
      ...
      Results       uns["plan"] (tl.plan_screen), uns["dag"] (tl.learn_dag), uns["dag_blr"]
                    (tl.fit_dag_blr)
      Not computed  tl.design_interventions, ...
    """
    used = keys_of(keys)
    results = read_all(adata, used, keys or {})
    with one_look():
        verdict = verdict_of(results, changes_of(adata, results))
    stored = [f'uns["{used[x]}"] ({SOURCES[x].function})' for x in SOURCES if x in results]
    facts = {
        **({"Warning": verdict.changes} if verdict.changes else {}),
        "Next": verdict.next,
        "Reliability": verdict.trust,
        "Notes": " ".join(verdict.notes),
        "Results": ", ".join(stored),
        "Not computed": ", ".join(function for _, function in absent(results)),
    }
    if methods:
        facts["Methods"] = methods_of(results)
    return Summary("Results in adata", facts)


def methods_of(results: Results) -> str:
    """Return a description of the analysis, from the options that are stored with each result.

    Examples
    --------
    >>> from nextpert._report.report import methods_of
    >>> methods_of({"dag": {"genes": ["A"], "n_edges": 0, "params": {"method": "given"}}})[-46:]
    'A given graph over 1 genes (0 edges) was used.'
    """
    used = {"version": version("nextpert"), "number": number, "ravel": np.ravel}
    # Line breaks of the template have no meaning.
    text = template("methods.txt.j2").render(**used, **dict.fromkeys(SOURCES) | dict(results))
    return " ".join(text.split())
