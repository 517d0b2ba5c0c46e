"""What a step found: a table, a verdict in words, and the numbers of the summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.cli._report import describe_ranking
from nextpert.cli._words import as_options

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


# How the table of every step starts, and that of the rounds: so is one known again as csv.
FIRST_COLUMNS = {
    "preprocess": ("perturbation", "target_genes"),
    "learn": ("parent", "child"),
    "fit": ("perturbation", "target_genes"),
    "effects": ("perturbation", "gene"),
    "design": ("rank", "perturbation"),
    "plan": ("well", "perturbation"),
    "cells": ("gene", "cell_sd"),
    "distances": ("perturbation", "n_cells"),
    "replay": ("held_out", "criterion"),
    "diagnose": ("part", "quantity"),
    "trace": ("round", "chosen"),
}


def table_of(step: str, adata: AnnData) -> pd.DataFrame:
    """Return the table of a step's results."""
    uns = adata.uns
    if step == "learn":
        return _arcs(adata)
    if step == "effects":
        return _effects(uns["perturbation_effects"])
    key, part = {
        "preprocess": ("preprocessing", "perturbations"),
        "fit": ("dag_blr", "environments"),
        "design": ("design", "ranking"),
        "plan": ("plan", "plate"),
        "cells": ("plan_cells", "genes"),
        "distances": ("target_distances", "table"),
        "replay": ("replay", "overall"),
        "diagnose": ("diagnosis", "summary"),
    }[step]
    table: pd.DataFrame = uns[key][part]
    return table


def verdict_of(step: str, adata: AnnData, said: list[str]) -> str:
    """Return what came out, in words; ``said`` is what the function logged."""
    if step == "preprocess":
        book = adata.uns["preprocessing"]
        kept = book["perturbations"]["kept"]
        return (
            f"{adata.n_obs} cells ({int(book['n_control_cells'])} of them controls), "
            f"{adata.n_vars} genes and {int(np.asarray(kept, bool).sum())} of {len(kept)} "
            "perturbations are kept."
        )
    if step == "effects":
        from nextpert._adata.effects import CLEAR_SIGN

        lfsr = np.asarray(adata.uns["perturbation_effects"]["lfsr"])
        clear = lfsr < CLEAR_SIGN
        return (
            f"{int(clear.sum())} of {lfsr.size} effects have a clear sign (local false sign rate "
            f"below {CLEAR_SIGN}); {int(clear.any(axis=1).sum())} of {len(lfsr)} perturbations "
            "have such an effect."
        )
    if step == "distances":
        return _nearest(adata.uns["target_distances"])
    if step == "design":
        return "\n".join(describe_ranking(adata))
    told = " ".join(said)
    return as_options(told) if step == "learn" else told  # it names what to try instead


def summary_of(step: str, adata: AnnData) -> dict[str, Any]:
    """Return the numbers of the summary, such as JSON takes."""
    out: dict[str, Any] = {"n_cells": adata.n_obs, "n_genes": adata.n_vars}
    if step == "plan":
        out |= adata.uns["plan"]["summary"]
    elif step == "diagnose":
        out["level"] = adata.uns["diagnosis"]["level"]
    elif step == "learn":
        out["n_arcs"] = adata.uns["dag"]["n_edges"]
    elif step == "design":
        table = table_of(step, adata)
        first = table.loc[~table["is_control"].to_numpy(bool)].iloc[0]
        out |= {str(name): value for name, value in first.items()}
    return {name: _plain(value) for name, value in out.items()}


def _nearest(stored: Any) -> str:
    """Say which perturbation's cells are nearest, and how many are clearly nearer than controls."""
    table = stored["table"]
    first = table.iloc[0]
    perturbed = table[table["perturbation"] != stored["params"]["control"]]
    nearer = int((perturbed["difference_high"] < 0).sum())
    return (
        f"Nearest to {stored['target']}: {first['perturbation']}, at {first['distance']:.3g} "
        f"({first['low']:.3g} to {first['high']:.3g}). {nearer} of {len(perturbed)} perturbations "
        f"are nearer than control cells, at {100 * stored['params']['confidence']:g} %."
    )


def _arcs(adata: AnnData) -> pd.DataFrame:
    import pandas as pd

    if "arcs" in adata.uns["dag"]:
        return pd.DataFrame(adata.uns["dag"]["arcs"])
    parents, children = adata.varp["dag"].nonzero()
    return pd.DataFrame({"parent": adata.var_names[parents], "child": adata.var_names[children]})


def _effects(stored: Any) -> pd.DataFrame:
    """Return one row a perturbation and gene: those of clear sign first, the largest at the top."""
    import pandas as pd

    from nextpert._adata.effects import CLEAR_SIGN

    columns = ("mean", "sd", "lower", "upper", "lfsr", "direct", "share_from_cells", "cells_mean")
    names, genes = (np.asarray(stored[x]).astype(str) for x in ("perturbations", "genes"))
    out = pd.DataFrame(
        {"perturbation": np.repeat(names, len(genes)), "gene": np.tile(genes, len(names))}
    )
    for name in columns:
        if name in stored:
            out[name] = np.asarray(stored[name], float).ravel()
    order = np.lexsort((-out["mean"].abs().to_numpy(), out["lfsr"].to_numpy() >= CLEAR_SIGN))
    return out.iloc[order].reset_index(drop=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    return value if isinstance(value, str | int | bool) else str(value)
