"""A methods paragraph of the results in an AnnData, ready to paste."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from nextpert._report.tables import count

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEARCHES = {
    "gsp": "greedy sparsest permutation (Solus et al. 2021, doi:10.1093/biomet/asaa104)",
    "causaldag": "greedy sparsest permutation (Solus et al. 2021, doi:10.1093/biomet/asaa104; "
    "causaldag)",
    "boss": "best order score search (Andrews et al. 2023)",
}
_PAPER = "Zhang et al. 2023, doi:10.1038/s42256-023-00719-0"


def methods_of(found: Mapping[str, dict[str, Any]]) -> str:
    """Return what was done, from the options that are stored with each result.

    Examples
    --------
    >>> from nextpert._report.methods import methods_of
    >>> methods_of({"dag": {"genes": ["A"], "n_edges": 0, "params": {"method": "given"}}})[-46:]
    'A given graph over 1 genes (0 edges) was used.'
    """
    words = [f"Analyses used nextpert {version('nextpert')}."]
    if "dag" in found:
        dag, params = found["dag"], found["dag"]["params"]
        size = f"over {count(len(dag['genes']))} genes ({count(dag['n_edges'])} edges)"
        method = str(params["method"])
        if method in _SEARCHES:
            cells = "all cells, with indicators of the perturbations," if (
                params.get("environments") == "all"
            ) else "the control cells"  # fmt: skip
            n_graphs = int(params.get("n_graphs", 1))
            more = f", and {n_graphs} graphs of bootstrap samples" if n_graphs > 1 else ""
            words.append(f"A graph {size} was learned from {cells} by {_SEARCHES[method]}{more}.")
        else:
            words.append(f"A given graph {size} was used.")
    if "dag_blr" in found:
        words.append(_fit(found["dag_blr"]))
    if "diagnosis" in found:
        parts = found["diagnosis"]["parts"]
        levels = [f"{part} ({level})" for part, level in zip(parts["part"], parts["level"],
                                                             strict=True)]  # fmt: skip
        words.append(
            f"Parts of the fit were tested on cells and perturbations that were left out "
            f"(tl.diagnose, seed {found['diagnosis']['params']['rng']}): {', '.join(levels)}."
        )
    if "design" in found:
        params = found["design"]["params"]
        n = int((found["design"]["ranking"]["rank"] > 0).sum())  # the control has none
        words.append(
            f"{count(n)} candidates were ranked towards {params['target']} by the acquisition "
            f"{params['acquisition']} ({params['n_samples']} joint draws, seed {params['rng']})."
        )
    if "plan" in found:
        params = found["plan"]["params"]
        words.append(
            f"A plan of {params['n_perturbations']} perturbations and {count(params['n_cells'])} "
            f"cells towards {params['target']} was chosen from {count(params['n_candidates'])} "
            f"candidates by the strategy {params['strategy']} (seed {params['rng']})."
        )
    return " ".join(words)


def _fit(fit: Mapping[str, Any]) -> str:
    params, table = fit["params"], fit["environments"]
    cells = (
        f"{count(table['n_cells'].sum())} cells of {count(len(table))} perturbations and "
        f"{count(fit['n_control_cells'])} control cells"
    )
    if params["shift_sd"] == 0:
        return (
            f"Weights of the graph were fitted to {cells} by Bayesian regression with a conjugate "
            f"prior, the shifts of perturbations taken as known (DAG-BLR; {_PAPER})."
        )
    kept = [
        f"{what} (obs column {params[key]})"
        for key, what in (("guide_key", "the variance between guides"),
                          ("batch_key", "differences between batches"))
        if params.get(key)
    ]  # fmt: skip
    with_ = f", with {' and '.join(kept)}" if kept else ""
    return (
        f"Effects of perturbations were estimated from {cells} by a hierarchical model{with_}: a "
        f"program that perturbations share, factors of coexpression, and sparse own effects with "
        f"a mixture of normals as prior, as in adaptive shrinkage (Stephens 2017, "
        f"doi:10.1093/biostatistics/kxw041), sampled by Gibbs sampling. Weights of the graph are "
        f"those of Bayesian regression within perturbations (DAG-BLR; {_PAPER}). Effects are "
        f"called significant at a local false sign rate below 0.05."
    )
