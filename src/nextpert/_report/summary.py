"""``nextpert.summary``: what the results in an AnnData say, in a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked
from nextpert._report.methods import methods_of
from nextpert._report.results import SOURCES, absent, keys_of, read_all
from nextpert._report.verdict import verdict_of
from nextpert.core._shown import card, lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


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

    This is the verdict of :func:`nextpert.report`, to read in a terminal or notebook: results in
    ``adata.uns`` are mappings of arrays and tables, which are not made to be printed.

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
        ``print`` and notebooks show it. Its ``facts`` are a dictionary: ``Next``, ``Reliability``,
        ``Notes``, ``Results`` (where they are stored and which function wrote them),
        ``Not computed``, and ``Methods`` if asked for.

    Raises
    ------
    ValueError
        If there is no result, one that ``keys`` names is absent, or one is damaged.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"B2M": 3.0}, candidates="genes", n_perturbations=2)
    >>> print(npt.summary(adata))  # doctest: +ELLIPSIS
    Results in adata
      Next          Order a plan of 2 perturbations (586 cells each): ...
      Reliability   How reliable these results are was not checked: run tl.diagnose.
      ...
      Results       uns["plan"] (tl.plan_screen), uns["dag"] (tl.learn_dag), uns["dag_blr"]
                    (tl.fit_dag_blr)
      Not computed  tl.design_interventions, ...
    """
    used = keys_of(keys)
    results = read_all(adata, used, keys or {})
    verdict = verdict_of(results)
    stored = [f'uns["{used[x]}"] ({SOURCES[x].function})' for x in SOURCES if x in results]
    facts = {
        "Next": verdict.next,
        "Reliability": verdict.trust,
        "Notes": " ".join(verdict.notes),
        "Results": ", ".join(stored),
        "Not computed": ", ".join(function for _, function in absent(results)),
    }
    if methods:
        facts["Methods"] = methods_of(results)
    return Summary("Results in adata", facts)
