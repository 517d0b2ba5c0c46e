"""A methods paragraph of the results in an AnnData, ready to paste."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nextpert._report.tables import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert._report.results import Results

_GSP = "greedy sparsest permutation (Solus et al. 2021, doi:10.1093/biomet/asaa104"
_SEARCHES = {
    "gsp": f"{_GSP})",
    "causaldag": f"{_GSP}; causaldag)",
    "boss": "best order score search (Andrews et al. 2023)",
}
_PAPER = "Zhang et al. 2023, doi:10.1038/s42256-023-00719-0"
_VARIANCES = {
    "guide_key": "the variance between guides",
    "batch_key": "differences between batches",
}


def methods_of(results: Results) -> str:
    """Return what was done, from the options that are stored with each result.

    Examples
    --------
    >>> from nextpert._report.methods import methods_of
    >>> methods_of({"dag": {"genes": ["A"], "n_edges": 0, "params": {"method": "given"}}})[-46:]
    'A given graph over 1 genes (0 edges) was used.'
    """
    words = [f"Analyses used nextpert {version('nextpert')}."]
    if "dag" in results:
        words.append(_graph(results["dag"]))
    if "dag_blr" in results:
        words.append(_fit(results["dag_blr"]))
    if "diagnosis" in results:
        parts, seed = results["diagnosis"]["parts"], results["diagnosis"]["params"]["rng"]
        levels = ", ".join(parts["part"].astype(str) + " (" + parts["level"].astype(str) + ")")
        words.append(
            f"Parts of the fit were tested on cells and perturbations that were left out "
            f"(tl.diagnose, seed {seed}): {levels}."
        )
    if "design" in results:
        params = results["design"]["params"]
        n = int((results["design"]["ranking"]["rank"] > 0).sum())  # the control has none
        words.append(
            f"{number(n)} candidates were ranked towards {params['target']} by the acquisition "
            f"{params['acquisition']} ({params['n_samples']} joint draws, seed {params['rng']})."
        )
    if "plan" in results:
        params = results["plan"]["params"]
        words.append(
            f"A plan of {params['n_perturbations']} perturbations and {number(params['n_cells'])} "
            f"cells towards {params['target']} was chosen from {number(params['n_candidates'])} "
            f"candidates by the strategy {params['strategy']} (seed {params['rng']})."
        )
    return " ".join(words)


def _graph(dag: Mapping[str, Any]) -> str:
    params = dag["params"]
    size = f"over {number(len(dag['genes']))} genes ({number(dag['n_edges'])} edges)"
    search = _SEARCHES.get(str(params["method"]))
    if search is None:
        return f"A given graph {size} was used."
    cells, n_graphs = "the control cells", int(params.get("n_graphs", 1))
    if params.get("environments") == "all":
        cells = "all cells, with indicators of the perturbations,"
    more = f", and {n_graphs} graphs of bootstrap samples" if n_graphs > 1 else ""
    return f"A graph {size} was learned from {cells} by {search}{more}."


def _fit(fit: Mapping[str, Any]) -> str:
    params, table = fit["params"], fit["environments"]
    cells = (
        f"{number(table['n_cells'].sum())} cells of {number(len(table))} perturbations and "
        f"{number(fit['n_control_cells'])} control cells"
    )
    if params["shift_sd"] == 0:
        return (
            f"Weights of the graph were fitted to {cells} by Bayesian regression with a conjugate "
            f"prior, the shifts of perturbations taken as known (DAG-BLR; {_PAPER})."
        )
    modelled = [
        f"{variance} (obs column {params[key]})"
        for key, variance in _VARIANCES.items()
        if params.get(key)
    ]
    with_ = f", with {' and '.join(modelled)}" if modelled else ""
    return (
        f"Effects of perturbations were estimated from {cells} by a hierarchical model{with_}: a "
        f"program that perturbations share, factors of coexpression, and sparse own effects with "
        f"a mixture of normals as prior, as in adaptive shrinkage (Stephens 2017, "
        f"doi:10.1093/biostatistics/kxw041), sampled by Gibbs sampling. Weights of the graph are "
        f"those of Bayesian regression within perturbations (DAG-BLR; {_PAPER}). Effects are "
        f"called significant at a local false sign rate below 0.05."
    )
