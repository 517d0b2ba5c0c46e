"""What a plan reads from a screen: guides, the stored diagnosis, and the size of the last plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import fitted_roles, read_every_label, read_labels, same_cells, strings
from nextpert._adata.guides import COLUMNS, KEY
from nextpert._adata.labels import joins_guides
from nextpert._adata.stored import read_stored
from nextpert.study.constructs import COMPOUNDS, CONSTRUCTS, GUIDES
from nextpert.study.controls import StoredControls, weak_guides
from nextpert.study.next_round import PLAN, next_plate
from nextpert.study.plate import split_cells
from nextpert.study.pool import usual

if TYPE_CHECKING:
    import anndata as ad

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.next_round import StoppingRule
    from nextpert.study.pool import Pool

_TYPE = "perturbation_type"  # column of scPerturb and pertpy: "CRISPR", "drug"
_DRUGS = ("drug", "compound", "chemical", "small molecule", "small_molecule")


def advise_on(
    adata: ad.AnnData,
    fit: FittedPosterior,
    pool: Pool,
    *,
    n_guides: int | None = None,
    rule: StoppingRule | None = None,
    rng: int | np.random.Generator | None = 0,
) -> dict[str, Any]:
    """Return the advice, as it is stored, for the plan that ``tl.plan_screen`` makes by default.

    ``pool`` holds all candidates that can still be the best.

    The plan has the size of the plan in ``uns["plan"]``, or :data:`PLAN`; ``n_guides`` is that of
    the screen by default.
    """
    guides = guides_of(adata, fit)[1] if n_guides is None else n_guides
    params = PLAN
    try:
        plan = read_stored(adata, "plan", "tl.plan_screen")
        params = {name: int(plan["params"][name]) for name in PLAN}
    except (ValueError, KeyError):  # no plan, or one in another format
        pass
    size = split_cells(params["n_cells"], params["n_perturbations"], params["min_cells"])
    null = stored_null(adata, fit)
    return next_plate(fit, pool, size, null=null, n_guides=guides, rule=rule, rng=rng).advice


def guides_of(adata: ad.AnnData, fit: FittedPosterior) -> tuple[dict[str, list[str]] | None, int]:
    """Return the guides of every perturbation and of the controls, and the usual number of guides.

    The guides with the most cells come first; the usual number is the median over perturbations.
    A level that joins guides, such as ``"STAT1_2,NTC_1"``, is a construct of a combination only.
    Without a column of guides, these are ``None`` and 1.
    """
    roles = fitted_roles(adata, fit.params)
    names = [*fit.names, fit.naming.control]
    if roles.guide_key is None:
        return None, 1
    group = read_every_label(adata, roles).groups(names)
    read = read_labels(adata, roles.guide_key, argument="guide_key")
    labelled = (group >= 0) & (read.codes >= 0)
    pairs, n_cells = np.unique(
        np.column_stack([group[labelled], read.codes[labelled]]), axis=0, return_counts=True
    )
    guides: dict[str, list[str]] = {name: [] for name in names}
    levels = set(read.names)
    for row, guide in pairs[np.argsort(-n_cells, kind="stable")]:
        name, level = names[row], read.names[guide]
        if len(fit.naming.key(name)) > 1 or not joins_guides(level, levels):
            guides[name].append(level)
    return guides, usual(np.array([len(guides[name]) for name in fit.names], np.int64))


def kinds_of_constructs(adata: ad.AnnData, *, has_guides: bool) -> tuple[str, str, str]:
    """Return what constructs of one, two and more members are.

    Constructs are compounds if most labelled cells have a drug in ``obs["perturbation_type"]``,
    guides if guides are declared, and otherwise of a kind that is not known.
    """
    if _TYPE in adata.obs:
        types = adata.obs[_TYPE].astype(str).str.lower()
        types = types[~types.isin(["nan", "none", "", "control"])]
        are_drugs = [any(word in x for word in _DRUGS) for x in types]
        if 2 * sum(are_drugs) > len(are_drugs):
            return COMPOUNDS
    return GUIDES if has_guides else CONSTRUCTS


def with_guide_columns(constructs: pd.DataFrame, adata: ad.AnnData) -> pd.DataFrame:
    """Return constructs with the further columns of ``uns["guides"]``, such as sequences.

    Values of several guides are joined like the guides; constructs without known guides have empty
    texts. A column of the same name as one of the constructs begins with ``guide_``.
    """
    table = adata.uns.get(KEY)
    if not isinstance(table, pd.DataFrame):
        return constructs
    table = table.set_axis(table.index.astype(str))
    guides = constructs["guides"].astype(str).str.split(", ")
    out = constructs.copy()
    for name in map(str, table.columns):
        if name in COLUMNS:
            continue
        of_guide = table[name].astype(str).to_dict()
        joined = [
            ", ".join(filter(None, (of_guide.get(x, "") for x in perturbations)))
            for perturbations in guides
        ]
        out[f"guide_{name}" if name in constructs else name] = strings(joined)
    return out


def stored_null(adata: ad.AnnData, fit: FittedPosterior, key: str = "diagnosis") -> StoredControls:
    """Return the tests in a stored diagnosis of the fit, and whether its controls are trusted.

    A diagnosis in ``uns[key]`` that is damaged, or of other cells or guides, is ignored.
    """
    try:
        stored: Any = read_stored(adata, key, "tl.diagnose")
    except ValueError:  # none, of an earlier version, or damaged
        return StoredControls()
    guide_key = str(fit.params.get("guide_key") or "")
    of_fit = same_cells(str(stored["cells"]), fit.fingerprint)
    if not of_fit or stored["params"]["guide_key"] != guide_key:
        return StoredControls()
    levels = stored["parts"].set_index("part")["level"].astype(str)
    is_trusted = levels.get("negative controls") != "do not trust"
    return StoredControls(stored["perturbations"], is_trusted, frozenset(weak_guides(stored)))
